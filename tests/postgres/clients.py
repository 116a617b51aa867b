"""A process of the product that several callers keep busy; prints how many answers of each status they got."""

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from app import create_app
from tests.postgres.conftest import WORKSPACES

CALLERS, ROUNDS = 4, 8


def main() -> None:
    """Create, list and delete workspaces, and what is in them."""
    app = create_app()

    def call(caller: int) -> Counter[int]:
        client, statuses = app.test_client(), Counter[int]()
        for turn in range(ROUNDS):
            one = f"{WORKSPACES}/w{os.getpid()}-{caller}-{turn}"
            for response in (
                client.post(WORKSPACES, json={"name": one.rpartition("/")[2]}),
                client.post(f"{one}/entities/recipe", json={"name": "soup", "data": {}}),
                client.get(f"{one}/entities/recipe"),
                client.get(WORKSPACES),
                client.delete(one),
            ):
                statuses[response.status_code] += 1
        return statuses

    with ThreadPoolExecutor(CALLERS) as callers:
        json.dump(sum(callers.map(call, range(CALLERS)), Counter()), sys.stdout)


if __name__ == "__main__":
    main()
