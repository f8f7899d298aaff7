"""The findings of `--check`, and the drivers that it knows.

It knows the names and the behaviour of drivers. It must never inspect the imported
modules.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BLOCKS", "GREEN", "IN_C", "OFFLOADED", "ON_SOCKETS", "WARNING", "Finding"]

GREEN, OFFLOADED, BLOCKS, WARNING = "green", "off-loaded", "BLOCKS", "warning"


@dataclass(frozen=True)
class Finding:
    """The result for one module or setting.

    Attributes:
        name: the module or the setting.
        verdict: GREEN, OFFLOADED, BLOCKS or WARNING.
        remedy: the remedy or a note; "" if there is none.
    """

    name: str
    verdict: str
    remedy: str = ""


#: Drivers written in Python on sockets: green if sockets are.
ON_SOCKETS = (
    "aiosmtplib",
    "amqp",
    "boto3",
    "botocore",
    "clickhouse_driver",
    "dns",
    "elastic_transport",
    "elasticsearch",
    "httplib2",
    "httpx",
    "influxdb",
    "kafka",
    "kazoo",
    "kombu",
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
    "stripe",
    "thriftpy2",
    "twilio",
    "urllib3",
    "vertica_python",
    "zeep",
)

_OFFLOAD = (
    "call its blocking functions through txgreenwsgi.offload(), or name them with "
    "--offload"
)

#: Drivers written in C that block: module -> remedy.
IN_C = {
    "MySQLdb": (
        "use PyMySQL (pymysql.install_as_MySQLdb(), in Django "
        "ENGINE txgreenwsgi.django.backends.mysql), or --offload its calls"
    ),
    "_mysql_connector": "connect with use_pure=True, or use PyMySQL",
    "cx_Oracle": "use python-oracledb in its thin mode, or --offload its calls",
    "pyodbc": _OFFLOAD,
    "turbodbc": _OFFLOAD,
    "pymssql": "use python-tds, or --offload its calls",
    "ibm_db": _OFFLOAD,
    "fdb": _OFFLOAD,
    "firebird.driver": _OFFLOAD,
    "apsw": "use txgreenwsgi.green.sqlite3, or --offload its calls",
    "pysqlcipher3": _OFFLOAD,
    "duckdb": _OFFLOAD,
    "pylibmc": "use pymemcache",
    "ldap": "use ldap3, or --offload its calls",
    "pycurl": "use requests or urllib3",
    "grpc": "--offload the calls of its stubs",
    "confluent_kafka": "use kafka-python, or --offload poll and flush",
    "aerospike": _OFFLOAD,
    "couchbase": _OFFLOAD,
    "lmdb": "--offload its transactions",
    "plyvel": _OFFLOAD,
    "rocksdb": _OFFLOAD,
    "pygit2": _OFFLOAD,
    "cassandra.io.libevreactor": "use cassandra.io.asyncorereactor",
    "zmq": "wait for the FD of a socket with txgreenwsgi.wait_readable, or --offload",
}
