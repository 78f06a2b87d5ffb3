"""Predict on a Dask cluster that is there already, with its client.

Run: python workflows/python/existing_client.py volume.zarr model.n2v denoised.zarr
     python workflows/python/existing_client.py volume.zarr model.n2v denoised.zarr \
         --scheduler tls://10.0.0.1:8786 --tls-ca ca.pem --tls-cert client.pem --tls-key client.key

Without ``--scheduler`` it makes a cluster of its own on this machine, with TLS, as an example of
any that your program may have (dask-jobqueue, dask-kubernetes, dask-gateway). Workers must see the
volume, the model and the output under the same addresses, and have n2v-scale installed. A Dask
scheduler runs whatever it is sent: none should listen beyond a machine without TLS.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from distributed import Client, LocalCluster
from distributed.security import Security

import n2v_scale
from n2v_scale.progress import progress_for


def own_client(stack: ExitStack, workers: int) -> Client:
    """A client of processes on this machine that nobody else can talk to."""
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        protocol="tls://",
        security=Security.temporary(),
        dashboard_address="127.0.0.1:0",
        preload=["n2v_scale.worker_setup"],  # leaves Ctrl-C to this process
    )
    return stack.enter_context(Client(stack.enter_context(cluster)))


def client_of(given: argparse.Namespace, stack: ExitStack) -> Client:
    """The client of the scheduler that was named, or one of our own."""
    if given.scheduler is None:
        return own_client(stack, given.workers)
    security = None
    if given.tls_ca:
        security = Security(
            require_encryption=True,
            tls_ca_file=given.tls_ca,
            tls_client_cert=given.tls_cert,
            tls_client_key=given.tls_key,
        )
    return stack.enter_context(Client(given.scheduler, security=security))


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, and print the summary as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume")
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--scheduler", help="its address; default: a cluster of our own")
    parser.add_argument("--tls-ca", help="certificate of the authority, PEM")
    parser.add_argument("--tls-cert", help="our certificate, PEM")
    parser.add_argument("--tls-key", help="our key, PEM")
    parser.add_argument("--workers", type=int, default=2, help="of our own cluster (default: 2)")
    parser.add_argument("--memory", help="that one worker may take, such as 16GB")
    given = parser.parse_args(arguments)

    with ExitStack() as stack:
        client = client_of(given, stack)
        summary = n2v_scale.predict(
            given.volume,
            given.model,
            given.output,
            client=client,
            memory=given.memory,
            progress=progress_for(sys.stderr),
        )
    print(json.dumps(summary.to_dict()))


if __name__ == "__main__":  # worker processes import this file
    main()
