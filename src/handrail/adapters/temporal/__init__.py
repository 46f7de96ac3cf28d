"""An engine on a Temporal server: runs go on while any machine of the team has a worker.

Rules:
- The journal is the truth. What Temporal keeps is thrown away and made anew from the journal where
  the two do not fit: a workflow that failed, was terminated, or belongs to another Handrail.
- One workflow a walk decides by the same pure rules as every engine (`plans/moving.py`), and is the
  only writer of the walk's chain. Marks are written by activities, behind the chain's fence.
- A step is an activity that is attempted once. When its worker is not heard of any more, the step
  is marked as taken up and found out about; nobody acts on it while that worker still does.
- What crosses is JSON, and small; it holds no secret.
- `temporalio` is an extra: `link.py` and `engine.py` import it when they first need it.
"""
