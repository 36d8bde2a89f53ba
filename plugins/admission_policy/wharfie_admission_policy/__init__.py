"""Hook plugin `admission-policy`: which images may be used, by registry and by signature."""
