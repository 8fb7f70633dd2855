"""What a program imports to give jobs to nodes.

    async with Client.open(identity) as client:
        result = await client.run("KEY@HOST:PORT", Task(module, stdin=b"Hello"))

A result is returned only once its receipt has been verified against the node's key and everything asked for.
"""

from phase.client.client import Client as Client
from phase.client.errors import ClientError as ClientError
from phase.client.errors import JobLostError as JobLostError
from phase.client.errors import NotKeptError as NotKeptError
from phase.client.errors import NotRunError as NotRunError
from phase.client.errors import RejectedError as RejectedError
from phase.client.errors import UntrueError as UntrueError
from phase.client.submission import Submission as Submission
from phase.client.task import Result as Result
from phase.client.task import Task as Task

__all__ = [
    "Client",
    "ClientError",
    "JobLostError",
    "NotKeptError",
    "NotRunError",
    "RejectedError",
    "Result",
    "Submission",
    "Task",
    "UntrueError",
]
