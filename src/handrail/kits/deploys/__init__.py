"""The deploys kit: what runs in production comes from the app's own repository.

`deploy`, `rollback`, `restart` and `scale` for apps; `drain`, `detach`, `terminate` and `scale` for
the machines that they run on.
"""
