import sys,time,cProfile,pstats
from celery import Celery
from afterward.celery.link import Link
from afterward.celery.messages import Message
url=sys.argv[1]
app=Celery("x",broker=url,set_as_current=False); app.conf.task_ignore_result=True
link=Link(app)
msgs=[Message("a.b",["01a22881-8fc1-7b3a-9b3a-0239695037d1",1,"01a22881-8fc1-7b3a-9b3a-0239695037d1"],{},f"t{i}",{},True) for i in range(500)]
link.publish(msgs,time.monotonic()+20)
def cpu(f):
    c=time.process_time(); t=time.monotonic(); f(); return time.monotonic()-t, time.process_time()-c
def ours():
    for _ in range(4): link.publish(msgs,time.monotonic()+20)
def plain():
    for _ in range(2000): app.send_task("a.b",["01a22881-8fc1-7b3a-9b3a-0239695037d1",1,"01a22881-8fc1-7b3a-9b3a-0239695037d1"],ignore_result=True)
print("ours", cpu(ours)); print("plain", cpu(plain)); print("ours", cpu(ours)); print("plain", cpu(plain))
if len(sys.argv)>2:
    p=cProfile.Profile(); p.enable(); ours(); p.disable(); pstats.Stats(p).sort_stats("tottime").print_stats(22)
