"""moto, a mock of the services of AWS, driven by boto3."""

from __future__ import annotations

import os
from typing import Any

from .client import at_once, check, data_folder, main


def prepare() -> None:
    """Do nothing: moto keeps its data in memory."""


def make_app() -> Any:
    """Return the server of all services."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def _client(service: str, url: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        service,
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(max_pool_connections=50, retries={"total_max_attempts": 1}),
    )


def drive(url: str) -> None:
    """Use S3, SQS and DynamoDB."""
    _drive_s3(url)
    _drive_sqs(url)
    _drive_dynamodb(url)


def _drive_s3(url: str) -> None:
    s3 = _client("s3", url)
    s3.create_bucket(Bucket="bucket")

    def put(number: int) -> bool:
        body = os.urandom(100_000)
        key = f"folder/object {number}"
        s3.put_object(Bucket="bucket", Key=key, Body=body)
        stored = s3.get_object(Bucket="bucket", Key=key)["Body"].read()
        return bool(stored == body)

    check("S3: 50 objects put and got at once", all(at_once(put)))
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="folder/")
    check("S3: list", listed["KeyCount"] == 50)
    # Above 8 MiB, boto3 uploads parts at once, with a checksum after the last chunk.
    large = data_folder() / "large.bin"
    large.write_bytes(os.urandom(20_000_000))
    s3.upload_file(str(large), "bucket", "large")
    copy = data_folder() / "copy.bin"
    s3.download_file("bucket", "large", str(copy))
    check("S3: 20 MB in parts", copy.read_bytes() == large.read_bytes())
    with large.open("rb") as file:
        s3.put_object(Bucket="bucket", Key="stream", Body=file)
    part = s3.get_object(Bucket="bucket", Key="stream", Range="bytes=100-199")
    expected = large.read_bytes()[100:200]
    check("S3: range", part["Body"].read() == expected)
    missing = ""
    try:
        s3.get_object(Bucket="bucket", Key="none")
    except s3.exceptions.NoSuchKey as error:
        missing = error.response["Error"]["Code"]
    check("S3: missing key", missing == "NoSuchKey")


def _drive_sqs(url: str) -> None:
    sqs = _client("sqs", url)
    queue = sqs.create_queue(QueueName="queue")["QueueUrl"]
    at_once(lambda n: sqs.send_message(QueueUrl=queue, MessageBody=f"message {n}"), 20)
    received = set()
    while True:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        if not messages.get("Messages"):
            break
        for message in messages["Messages"]:
            received.add(message["Body"])
            handle = message["ReceiptHandle"]
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)
    check("SQS: 20 messages", received == {f"message {n}" for n in range(20)})

    # Receivers wait for messages, longer than it takes to send them.
    def receive(_: int) -> int:
        reply = sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=1, WaitTimeSeconds=20
        )
        return len(reply.get("Messages", ()))

    def both(number: int) -> int:
        if number < 10:
            return receive(number)
        sqs.send_message(QueueUrl=queue, MessageBody="late")
        return 0

    check("SQS: 10 receivers that wait", sum(at_once(both, 20)) == 10)


def _drive_dynamodb(url: str) -> None:
    dynamodb = _client("dynamodb", url)
    dynamodb.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def put(number: int) -> bool:
        key = {"id": {"S": f"item {number}"}}
        dynamodb.put_item(TableName="table", Item={**key, "n": {"N": str(number)}})
        item = dynamodb.get_item(TableName="table", Key=key)["Item"]
        return bool(item["n"]["N"] == str(number))

    check("DynamoDB: 50 items put and got at once", all(at_once(put)))
    check("DynamoDB: scan", dynamodb.scan(TableName="table")["Count"] == 50)


if __name__ == "__main__":
    main(prepare, drive)
