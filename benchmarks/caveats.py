"""What is unfair about each comparison, said beside its figures."""

from __future__ import annotations

from collections.abc import Mapping

OF: Mapping[str, str] = {
    "engine": """
        What to bear in mind:

        - The ceiling does no job service's work: it makes its documents before the clock starts, reads nothing back
          after a claim, runs no task, renews no lease, watches no queue. No engine can reach it; "drain" comes near
          because what it runs was stored before the clock started.
        - The ceiling claims and completes 100 at a time, as it was set; the engine takes what its 200 free slots allow,
          which may be more at a time, and helps it.
        - Client and server share the cores: what one saves, the other gets. Hence the CPU beside each rate.
        - The figures of the engine end when it is drained, which includes saying goodbye to the database.
        """,
    "ceiling": """
        "Sequential" waits for each call before the next; "pipelined" has three of each kind in flight.
        """,
    "peers": """
        What is unfair here, in both directions:

        - On Redis as it comes, a crash of the server loses minutes of jobs; these peers do less, and are counted as not
          durable. `appendfsync always` is what compares with the rest. Huey takes a job off the list before it runs,
          Celery acknowledges it then by default: a crash of the worker loses it, whatever Redis does.
        - The embedded server stands in for MongoDB where no other is given: a beta, with a cost of its own for every
          operation. A real `mongod` replica set has other figures; measure on yours.
        - Threads and single jobs at a time (dramatiq, celery, rq, huey) against hundreds of coroutines: a no-op job
          flatters the latter, and favours those that fetch many. The final has the finalists on asyncio with more
          coroutines too, those with threads with more threads; nobody else was tried with more.
        - Each runs as its documentation has it for one process, but for this: arq looks for jobs each 10 ms instead of
          each half second, rq runs them in its SimpleWorker instead of a fork for each, Celery has threads (it is there
          once more with its child processes), and those on PostgreSQL have pools of up to 20 connections, where oban's
          default is 10 and procrastinate's 4. Most of that favours them. Those on asyncio run 100 at once, where the
          defaults are from 1 to 100.
        - "End to end" is from the first enqueue to the last run, with the worker up and idle before. It does not wait
          for the acknowledgement of the last jobs, which favours those that acknowledge in batches, as ours does.
        - Ours runs with its defaults but for its slots, of which it has as many as the asyncio peers, and 5,000 ids at
          hand instead of 1,000: a look at the embedded server costs as much whatever it fetches, so fewer of them help.
        - It takes a second or two with the fastest, in which the machine may be slow for one and not for another:
          hence the final, whose turns have all of them within some minutes, and the middle of its ratios.
        - What runs at once at the end is not waited for to be acknowledged: 400 at once are 8 % of 5,000 jobs, 4 % of
          10,000. Above the final's table stands how many there were.
        - In the final ours runs with PyMongo too, which is set and not the default. Who has more forms has more chances
          of a lucky one: ours has twelve, other asyncio peers six.
        - The bare calls of the final store, claim and complete as many jobs, read and run nothing, and are timed until
          the last completion is acknowledged, which of a queue is not waited for: one may come out ahead of them.
        - Results: arq, saq and rq keep something for each job whether or not a task returns anything; taskiq, dramatiq
          and celery only when told to; procrastinate keeps none, and has no row with results.
        - Producer, worker and server share the cores. "Over HTTP" has one more process than all the others.
        - Finished jobs stay in the database here and with oban and procrastinate; on Redis they are gone.
        - "Drain" is from the first job's run to the last one's; "settled" goes on until the store knows all to be done,
          and is the fairer figure for those that acknowledge in batches.
        """,
    "http": """
        What to bear in mind:

        - Load generator, service and database share the cores: requests a second depend on all three, the CPU of the
          server process on itself alone. "Of bare, CPU" is the bare handler's CPU as a share of the service's.
        - "2 processes" are two of the service on one port, each with group commits of its own, which are smaller then.
          They have a second core only where load generator and database leave one; else the rows show what a second
          process costs.
        - The bare `POST` stores nothing. The rows below it store the same fields as the service, together with those
          that come meanwhile or each body by itself, without asking whether an id is taken, what is to be said when the
          database fails, or how much may wait.
        - The bare handler has no middleware, no request id, no problem documents; its body is parsed and checked in one
          pass, without the checks for repeated keys, wide integers and depth.
        - The bare `GET` answers the same bytes whatever it finds, without reading them from the document, and has one
          find for each request; the service reads together what is asked for in the same moment. With one client at a
          time both make one find for each request.
        """,
    "latency": """
        What to bear in mind:

        - The bare calls are an insert and a claim in one connection, one after the other, by the same driver. On the
          embedded server the claim is `update_many` by id and a read, since its `find_one_and_update` reads the whole
          collection; on MongoDB it is `find_one_and_update`. The service does not read what was stored a moment ago.
        - Across processes the clocks of both are the machine's own, and the write by which the other process records
          its start (a microsecond or two) is part of it. Where several workers listen, all are woken by each job, on
          the same two cores; one of them claims it. The first jobs, which they all claim, are among those measured.
        - Where a worker polls, the pauses between jobs are longer by a random part of the interval: equal ones would
          always end at the same moment between two polls.
        """,
    "growth": """
        What to bear in mind:

        - "Bare" is the same query, or the same three calls as for the ceiling, on the same filled collection: what
          grows there grows because of the server. The embedded server reads all that an index clause matches; MongoDB
          reads what a limit asks for.
        - Queries are the quickest of five, claims too, ours and bare ones in turns. Beside finished jobs a thousand
          wait to be claimed, all of which the embedded server reads at each look.
        - The product keeps 10,000 finished jobs on the embedded server; here all are kept.
        - With so many finished, new jobs go from enqueue to completed; of a backlog the first are run, beside which no
          bare calls are shown.
        - Backlogs end at 300,000 at most: at each look the embedded server reads all that waits, which with a million
          took longer than the 8 s that a call may take.
        - Worker processes beyond the number of cores, beside a database on the same cores, can only show what
          contention costs, not what more machines bring.
        """,
    "blocking": """
        `/livez` is asked twenty times a second of the process that runs the tasks, while two of them keep a core busy
        with Python for seconds, at once in two threads or processes, one after the other on the event loop. Leases last
        3 s and are renewed each second by a thread of its own; a second process stands by that would rescue what is not
        renewed, and at the end every job had completed at its first attempt. A thread shares the interpreter's lock:
        answers take longer, but come. What runs on the event loop stops every answer of its process; a job claimed
        while the loop is held is not renewed before the loop turns again, and given back if its lease has become too
        short.
        """,
}
