import asyncio, sys, time, logging, os, subprocess, threading, resource
from afterward import Afterward
from afterward.engine.worker import WorkerOptions
url=sys.argv[1]; n=int(sys.argv[2])
import glob
for f in glob.glob("/tmp/g-relay/.t.db*"):
    os.path.isfile(f) and os.remove(f)
tasks=Afterward("sqlite:////tmp/g-relay/.t.db", celery=url)
@tasks.task(executor="celery", name="demo:add", queue=f"q{os.getpid()}")
def add(a:int,b:int)->int: return a+b
async def main():
    async with tasks.running(WorkerOptions()):
        await asyncio.sleep(1)
        c=time.process_time(); t=time.monotonic()
        await tasks.enqueue_many([add.prepare(1,2) for _ in range(n)])
        t1=time.monotonic(); c1=time.process_time()
        while sum(q.handed for q in (await tasks.store.stats()).queues)<min(n,10000): await asyncio.sleep(0.05)
        print(f"stored {n} in {t1-t:.2f} s ({c1-c:.2f} cpu); handed over in {time.monotonic()-t1:.2f} s, cpu {1e6*(time.process_time()-c1)/n:.0f} us each")
asyncio.run(main())
