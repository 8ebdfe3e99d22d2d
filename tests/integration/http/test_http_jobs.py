"""The routes of jobs, one by one, when everything is well."""

from __future__ import annotations


async def test_a_posted_job_is_answered_with_201_its_place_and_the_job(client):
    response = await client.post("/jobs", json={"type": "email.send", "payload": {"to": "a@example.com"}})

    job = await response.json()
    assert response.status == 201
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    assert job["type"] == "email.send"
