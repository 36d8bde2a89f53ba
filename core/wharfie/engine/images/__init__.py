"""Images: pulled, loaded, imported, named, listed, saved, removed.

reference   names as people write them, and what they mean
platform    which of several platforms of an image fits
documents   manifests, indexes and configurations, read with suspicion
catalog     the records: which images there are, what they are called, what they are made of
flights     one piece of work for all who want it
pipes       streams between our threads and a driver
download    blobs from a registry into the content store
decode      gzip, zstd, xz and bzip2, with bounded memory
unpack      layers from the content store into the storage driver
pull        an image from a registry
push        an image to a registry
compress    layers made smaller for it
mirror      images as other engines may pull them from here
artifacts   files at a registry that are no image: signatures, SBOMs, anything
archive     the tar of `docker load`, taken apart
load        images of such a tar
importing   a root file system's tar as an image
changes     Dockerfile instructions of `docker import --change`
commit      a container's changes as an image
save        images as a tar
removal     `docker rmi` and `docker image prune`
upkeep      the content store looked at, and mended
remote      looks at registries
listing     filters and history
variants    what is behind a name, platform by platform
progress    what the CLI shows meanwhile
images      the front: `Images`
"""
