"""MLflow's tracking server, driven by its Python client."""

from __future__ import annotations

import os
import threading
from typing import Any

from .client import at_once, check, data_folder, fetch, main


def prepare() -> None:
    """Create the folder of the artifacts, and a file to log."""
    (data_folder() / "artifacts").mkdir()
    (data_folder() / "model.bin").write_bytes(os.urandom(8_000_000))


def make_app() -> Any:
    """Return the tracking server with a SQLite database, which serves artifacts."""
    database = f"sqlite:///{data_folder()}/mlflow.db"
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": database,
            "_MLFLOW_SERVER_REGISTRY_STORE": database,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(data_folder() / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
    )
    from mlflow.server import app

    return app


def drive(url: str) -> None:
    """Log runs with metrics and artifacts, and search them."""
    from mlflow.tracking import MlflowClient

    check("health", fetch(f"{url}/health").text == "OK")
    client = MlflowClient(url)
    experiment = client.create_experiment("experiment")
    check("experiment", client.get_experiment(experiment).name == "experiment")

    def log_run(number: int) -> str:
        own = MlflowClient(url)
        run = own.create_run(experiment, run_name=f"run {number}")
        identifier: str = run.info.run_id
        own.log_param(identifier, "number", number)
        for step in range(5):
            own.log_metric(identifier, "loss", number + step, step=step)
        own.set_tag(identifier, "thread", threading.current_thread().name)
        own.set_terminated(identifier)
        return identifier

    runs = at_once(log_run, 10)
    check("10 clients log runs", len(set(runs)) == 10)
    found = client.search_runs([experiment], "metrics.loss > 8.5")
    numbers = sorted(int(run.data.params["number"]) for run in found)
    check("search", numbers == [5, 6, 7, 8, 9], numbers)
    history = client.get_metric_history(runs[3], "loss")
    values = [metric.value for metric in history]
    check("history of a metric", values == [3, 4, 5, 6, 7], values)
    model = data_folder() / "model.bin"
    client.log_artifact(runs[0], str(model), "models")
    listed = [each.path for each in client.list_artifacts(runs[0], "models")]
    check("artifact of 8 MB", listed == ["models/model.bin"], listed)
    target = client.download_artifacts(
        runs[0], "models/model.bin", str(data_folder() / "artifacts")
    )
    with open(target, "rb") as file:
        check("download", file.read() == model.read_bytes())
    client.create_registered_model("registered")
    source = f"{client.get_run(runs[0]).info.artifact_uri}/models"
    version = client.create_model_version("registered", source, runs[0])
    check("model registry", str(version.version) == "1", version)
    client.delete_run(runs[1])
    check("delete", len(client.search_runs([experiment])) == 9)
    check("user interface", fetch(f"{url}/").status in (200, 404))
    pages = at_once(lambda _: fetch(f"{url}/version").status)
    check("50 requests at once", set(pages) == {200}, pages)


if __name__ == "__main__":
    main(prepare, drive)
