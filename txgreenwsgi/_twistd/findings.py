"""The findings of `--check`, and the drivers that it knows.

It knows the names and the behaviour of drivers. It must never inspect the imported
modules.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BLOCKS",
    "GREEN",
    "HARMLESS",
    "IN_C",
    "OFFLOADED",
    "ON_SOCKETS",
    "UNKNOWN",
    "WARNING",
    "Finding",
]

GREEN, OFFLOADED, BLOCKS, WARNING = "green", "off-loaded", "BLOCKS", "warning"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The result for one module or setting.

    Attributes:
        name: the module or the setting.
        verdict: GREEN, OFFLOADED, UNKNOWN, BLOCKS or WARNING.
        remedy: the remedy or a note; "" if there is none.
        blocks_calls: whether it delays other requests by calls that block, as opposed
            to state that requests share. Requests in threads need no other remedy.
    """

    name: str
    verdict: str
    remedy: str = ""
    blocks_calls: bool = False


#: Drivers written in Python on sockets: green if sockets are.
ON_SOCKETS = (
    "aiosmtplib",
    "amqp",
    "boto3",
    "botocore",
    "clickhouse_driver",
    "consul",
    "dns",
    "elastic_transport",
    "elasticsearch",
    "httplib2",
    "httpx",
    "hvac",
    "influxdb",
    "kafka",
    "kazoo",
    "kombu",
    "kubernetes",
    "ldap3",
    "minio",
    "neo4j",
    "opensearchpy",
    "paramiko",
    "pg8000",
    "pika",
    "pymemcache",
    "pymongo",
    "pymysql",
    "pysolr",
    "pytds",
    "redis",
    "requests",
    "rethinkdb",
    "sentry_sdk",
    "slack_sdk",
    "snowflake.connector",
    "stripe",
    "thriftpy2",
    "twilio",
    "urllib3",
    "valkey",
    "vertica_python",
    "zeep",
)

_OFFLOAD = (
    "call its blocking functions through txgreenwsgi.offload(), or name them with "
    "--offload"
)

_EMBEDDED = "--offload its calls: each query runs in C until it ends"
_HTTP = "use requests, urllib3 or httpx, or --offload its calls"

#: Drivers written in C, Rust or Go that block: module -> remedy.
IN_C = {
    # Databases.
    "MySQLdb": (
        "use PyMySQL (pymysql.install_as_MySQLdb(), in Django "
        "ENGINE txgreenwsgi.django.backends.mysql), or --offload its calls"
    ),
    "mariadb": "use PyMySQL, or --offload its calls",
    "_mysql_connector": "connect with use_pure=True, or use PyMySQL",
    "cx_Oracle": "use python-oracledb in its thin mode, or --offload its calls",
    "pyodbc": _OFFLOAD,
    "turbodbc": _OFFLOAD,
    "arrow_odbc": _OFFLOAD,
    "connectorx": _OFFLOAD,
    "adbc_driver_manager": _OFFLOAD,
    "pymssql": "use python-tds, or --offload its calls",
    "_mssql": "use python-tds, or --offload its calls",
    "ctds": "use python-tds, or --offload its calls",
    "pgdb": "use psycopg, or --offload its calls",
    "ibm_db": _OFFLOAD,
    "hdbcli": _OFFLOAD,
    "teradatasql": _OFFLOAD,
    "jaydebeapi": _OFFLOAD,
    "fdb": _OFFLOAD,
    "firebird.driver": _OFFLOAD,
    "kinterbasdb": _OFFLOAD,
    "aerospike": _OFFLOAD,
    "couchbase": _OFFLOAD,
    "cassandra.io.libevreactor": "use cassandra.io.asyncorereactor",
    "cassandra.io.libevwrapper": "use cassandra.io.asyncorereactor",
    # Databases in the process.
    "apsw": "use txgreenwsgi.green.sqlite3, or --offload its calls",
    "pysqlcipher3": _EMBEDDED,
    "sqlcipher3": _EMBEDDED,
    "pysqlite3": "use txgreenwsgi.green.sqlite3, or --offload its calls",
    "libsql": _EMBEDDED,
    "libsql_experimental": _EMBEDDED,
    "duckdb": _EMBEDDED,
    "chdb": _EMBEDDED,
    "kuzu": _EMBEDDED,
    "lmdb": "--offload its transactions",
    "plyvel": _EMBEDDED,
    "leveldb": _EMBEDDED,
    "rocksdb": _EMBEDDED,
    "rocksdict": _EMBEDDED,
    "bsddb3": _EMBEDDED,
    "berkeleydb": _EMBEDDED,
    "xapian": _EMBEDDED,
    # Caches and queues.
    "pylibmc": "use pymemcache",
    "_pylibmc": "use pymemcache",
    "confluent_kafka": "use kafka-python, or --offload poll and flush",
    "_pulsar": _OFFLOAD,
    "librabbitmq": "use pika or amqp",
    "_librabbitmq": "use pika or amqp",
    "proton": _OFFLOAD,
    "pymqi": _OFFLOAD,
    "ibmmq": _OFFLOAD,
    "zmq": "wait for the FD of a socket with txgreenwsgi.wait_readable, or --offload",
    "nanomsg": _OFFLOAD,
    "pynng": _OFFLOAD,
    # HTTP and RPC.
    "pycurl": "use requests or urllib3",
    "curl_cffi": _HTTP,
    "primp": _HTTP,
    "rnet": _HTTP,
    "tls_client": _HTTP,
    "grpc": "--offload the calls of its stubs",
    # Directories, files and systems.
    "ldap": "use ldap3, or --offload its calls",
    "gssapi": _OFFLOAD,
    "kerberos": _OFFLOAD,
    "ssh2": "use paramiko, or --offload its calls",
    "smbc": _OFFLOAD,
    "rados": _OFFLOAD,
    "rbd": _OFFLOAD,
    "cephfs": _OFFLOAD,
    "libvirt": _OFFLOAD,
    "dbus": _OFFLOAD,
    "netsnmp": "use pysnmp, or --offload its calls",
    "easysnmp": "use pysnmp, or --offload its calls",
    "pygit2": _OFFLOAD,
    "awscrt": "use boto3 without its CRT extension, or --offload its calls",
    "pyarrow.flight": _OFFLOAD,
    "deltalake": _OFFLOAD,
}

#: Packages whose extension modules can open connections, but do not make calls wait for
#: them; and those that the drivers in `check.py` with a special verdict consist of.
HARMLESS = frozenset(
    (
        "OpenSSL",
        "cryptography",
        "ddtrace",
        "hiredis",
        "psycopg_binary",
        "psycopg_c",
        "txgreenwsgi",
    )
)
