"""From a configuration to where the log's tiles are: in its folder, or in a bucket."""

import os
from pathlib import Path

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.log.config import LogConfig, ObjectStoreConfig
from trunkline.log.crash import CrashHook, no_crash
from trunkline.log.files import Folder
from trunkline.log.objects import ObjectTiles
from trunkline.log.tiles import Tiles
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.s3 import Bucket, S3Caller
from trunkline.remote.sigv4 import Credentials
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.config import read_secret, resolve


def open_tiles(config_path: Path, config: LogConfig, crash: CrashHook = no_crash) -> Tiles:
    """Where the tiles are. Asks for none yet. ConfigError naming what is wrong."""
    store = config.object_store
    if store is None:
        return Folder(resolve(config_path, config.data), crash)
    bucket, prefix = config.bucket
    transport = HttpTransport()
    try:
        caller = S3Caller(
            transport,
            Bucket(
                endpoint=store.endpoint,
                name=bucket,
                region=store.region,
                path_style=store.path_style,
            ),
            Credentials.parse(_secret(config_path, store)),
            clock=SystemClock(),
            timeout_s=store.timeout_s,
        )
    except MalformedError as error:
        raise ConfigError(f"key object_store: {error.message}") from None
    return ObjectTiles(caller, transport, prefix, crash=crash)


def _secret(config_path: Path, store: ObjectStoreConfig) -> str:
    if store.key_file is not None:
        return read_secret(resolve(config_path, store.key_file))
    found = os.environ.get(store.key_env or "")
    if not found:
        raise ConfigError(f"key object_store: the variable {store.key_env} is not set")
    return found
