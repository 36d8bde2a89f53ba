"""Terminals: the master by socket for who detaches, by this process for who stays."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import socket
import struct
import subprocess
import termios

from .conftest import wait_for


def read_until(fd, word):
    text = b""

    def found():
        nonlocal text
        try:
            text += os.read(fd, 1000)
        except OSError:  # EIO: the last one has closed it
            return True
        return word in text

    wait_for(found)
    return text.decode()


def test_master_goes_to_the_console_socket(runtime, adopt, tmp_path):
    with socket.socket(socket.AF_UNIX) as console:
        console.bind(str(tmp_path / "console"))
        console.listen()
        name = runtime.new(
            "sh", "-c", "tty; stty size; read word; exit 4", terminal=True, consoleSize={"height": 12, "width": 34}
        )
        assert "cannot allocate tty" in runtime.fails("create", "-b", runtime.bundle, name)
        options = ["--console-socket", tmp_path / "console", "--pid-file", tmp_path / "pid", "-b", runtime.bundle]
        runtime.quietly(runtime.command("create", *options, name))
        connection, _ = console.accept()
        with connection:
            _, ((_, _, data), *_), _, _ = connection.recvmsg(100, socket.CMSG_LEN(4))
    (master,) = array.array("i", data)
    runtime.ok("start", name)
    assert read_until(master, b"34").split() == ["/dev/pts/0", "12", "34"]
    os.write(master, b"word\n")
    assert adopt(int((tmp_path / "pid").read_text())) == 4
    os.close(master)


def test_terminal_in_the_foreground(runtime):
    name = runtime.new("sh", "-c", "tty; stty size; read word; stty size; exit 5", terminal=True)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
    before = termios.tcgetattr(slave)
    command = runtime.command("run", "-b", runtime.bundle, name)
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as run:
        assert read_until(master, b"50").split() == ["/dev/pts/0", "20", "50"]
        assert termios.tcgetattr(slave)[3] & termios.ICANON == 0
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 51, 0, 0))
        run.send_signal(28)  # SIGWINCH, which the kernel sends where the terminal is the controlling one
        exec_command = runtime.command(
            "exec", name, "sh", "-c", "while [ $(stty size < /dev/pts/0 | cut -d' ' -f1) != 21 ]; do :; done"
        )
        subprocess.run(exec_command, stdin=subprocess.DEVNULL, check=True, timeout=60)
        os.write(master, b"x\n")
        assert read_until(master, b"51").split() == ["x", "21", "51"]
        assert run.wait(60) == 5
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
