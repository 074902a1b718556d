#!/bin/sh
# Entry point of the image. Lambda is known by its Runtime API; everywhere else, with or without SageMaker's argument
# `serve`, the same service is a plain HTTP server: one process, because one engine serves all callers.
if [ -n "${AWS_LAMBDA_RUNTIME_API:-}" ]; then
  # Lambda names every image function's environment AWS_Lambda_Image. By this name awslambdaric waits for events in a
  # thread, so that signals are handled between them, and sends non-ASCII text as it is instead of six bytes a character.
  export AWS_EXECUTION_ENV=AWS_Lambda_python3.13
  # Managed Instances send an environment so many calls at once: one process takes them all, with one model.
  [ -n "${AWS_LAMBDA_MAX_CONCURRENCY:-}" ] && exec python -m handler.runtime
  exec python -m awslambdaric handler.entry.handler
fi
# exec: the server is the process that gets the host's SIGTERM, and finishes what it has begun. Its own access log would
# show query strings, where callers have put their keys; handler/api/frame.py has a line for each request. Load balancers
# keep idle connections for a minute: one that the server closes first loses the request that is just being sent on it.
exec python -m uvicorn handler.api.app:create_app --factory --host 0.0.0.0 --port "${PORT:-8080}" --workers 1 \
  --http handler.api.protocol:Http11 --no-access-log --timeout-keep-alive 75 \
  --timeout-graceful-shutdown "${DRAIN_SECONDS:-8}"
