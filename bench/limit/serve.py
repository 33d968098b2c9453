"""The all-C forwarder as a process: `serve.py PORT GSO LEG_PORT...`, until it is killed. `limit.c` does the work."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pylibsrtp._binding
from limit.common import listening
from load.native import build

FUNCTIONS = (
    "EVP_CIPHER_CTX_new",
    "EVP_aes_128_gcm",
    "EVP_EncryptInit_ex",
    "EVP_EncryptUpdate",
    "EVP_EncryptFinal_ex",
    "EVP_DecryptInit_ex",
    "EVP_DecryptUpdate",
    "EVP_CIPHER_CTX_ctrl",
)
"""In the order of `struct crypto`."""


def main(port: int, gso: int, legs: list[int]) -> None:
    openssl = ctypes.CDLL(pylibsrtp._binding.__file__)
    pointers = [ctypes.cast(getattr(openssl, name), ctypes.c_void_p) for name in FUNCTIONS]
    crypto = (ctypes.c_void_p * len(pointers))(*pointers)
    library = ctypes.CDLL(str(build(Path(__file__).with_name("limit.c"), "-shared", "-fPIC")))
    sock = listening(port)
    print("ready", flush=True)
    ports = (ctypes.c_uint16 * len(legs))(*legs)
    library.run(crypto, sock.fileno(), sock.fileno(), gso, ports, len(legs))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(argument) for argument in sys.argv[3:]])
