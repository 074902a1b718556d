# The function's image: on AWS Lambda and, as a plain HTTP server, on any other container host (handler/entry.sh).
# It keeps to what Docker's classic builder knows, because `sam build` uses that one unless told otherwise.
#
#   sam build                                     or, without SAM:
#   docker build --provenance=false --target cpu --build-arg MODEL=all-minilm-l6-v2 -t emblet .

# layer: the model layer. It sees nothing of handler/ but what a layer is, so that new code does not make a new layer.
FROM public.ecr.aws/lambda/python:3.13 AS layer
WORKDIR /build
COPY requirements.build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.build.lock
COPY handler/__init__.py handler/
COPY handler/engine/__init__.py handler/engine/manifest.py handler/engine/packing.py handler/engine/
COPY model_layer/ model_layer/
ARG MODEL=all-minilm-l6-v2
ARG PRECISION=int8
ARG CL100K=litellm
# A layer that was built outside lies in model_layer/out/ and is taken as it is. Modes are set here and not in the image:
# there a chmod would store every weight a second time.
RUN case "$PRECISION" in int8) name="$MODEL" ;; *) name="$MODEL-$PRECISION" ;; esac && \
    python -m model_layer build "$MODEL" --precision "$PRECISION" --cl100k "$CL100K" --if-absent && \
    mv "model_layer/out/$name" /layer && chmod -R a+rX /layer

FROM public.ecr.aws/lambda/python:3.13 AS cpu
WORKDIR ${LAMBDA_TASK_ROOT}
# What is biggest and changes least comes first, so that a push of new code sends none of it.
COPY --from=layer /layer/ /opt/model/
COPY requirements.cpu.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.cpu.lock
COPY handler/ ${LAMBDA_TASK_ROOT}/handler/
COPY handler/entry.sh /entry.sh
# Bytecode is made here, because Lambda's disk is read-only and every cold start would compile again; pip has made that of
# the packages. Lambda runs the function as a user who owns nothing and reads what everyone may.
RUN python -m compileall -q ${LAMBDA_TASK_ROOT} && chmod -R a+rX ${LAMBDA_TASK_ROOT} && chmod 755 /entry.sh
ENV MODEL_DIR=/opt/model USER=lambda HOME=/tmp XDG_CACHE_HOME=/tmp/.cache ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["/entry.sh"]
