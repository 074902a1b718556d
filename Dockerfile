# The function's image: on AWS Lambda and, as a plain HTTP server, on any other container host (handler/entry.sh).
# It keeps to what Docker's classic builder knows, because `sam build` uses that one unless told otherwise.
#
#   sam build                                     or, without SAM:
#   docker build --provenance=false --target cpu --build-arg MODEL=all-minilm-l6-v2 -t emblet .
#   docker build --provenance=false --target gpu --build-arg MODEL=bge-m3 -t emblet:gpu .

# function: what both kinds of image have.
FROM public.ecr.aws/lambda/python:3.13 AS function
WORKDIR ${LAMBDA_TASK_ROOT}
ENV MODEL_DIR=/opt/model USER=lambda HOME=/tmp XDG_CACHE_HOME=/tmp/.cache ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["/entry.sh"]

# code: the handler. Bytecode is made here, because Lambda's disk is read-only and every cold start would compile again;
# it is never compared with its source, whose date a copy may change. Lambda runs the function as a user who owns nothing
# and reads what everyone may.
FROM function AS code
COPY handler/ handler/
COPY handler/entry.sh /entry.sh
RUN python -m compileall -q --invalidation-mode unchecked-hash ${LAMBDA_TASK_ROOT} && \
    chmod -R a+rX ${LAMBDA_TASK_ROOT} && chmod 755 /entry.sh

# builder: what makes model layers. It sees nothing of handler/ but what a layer is, so that new code does not make a new
# layer.
FROM public.ecr.aws/lambda/python:3.13 AS builder
WORKDIR /build
COPY requirements.build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.build.lock
COPY handler/__init__.py handler/
COPY handler/engine/__init__.py handler/engine/manifest.py handler/engine/packing.py handler/engine/
COPY model_layer/ model_layer/

# layer: the model layer. One that was built outside lies in model_layer/out/ and is taken as it is. Modes are set here
# and not in the image: there a chmod would store every weight a second time.
FROM builder AS layer
ARG MODEL=all-minilm-l6-v2
ARG PRECISION=int8
ARG CL100K=litellm
RUN case "$PRECISION" in int8) name="$MODEL" ;; *) name="$MODEL-$PRECISION" ;; esac && \
    python -m model_layer build "$MODEL" --precision "$PRECISION" --cl100k "$CL100K" --if-absent && \
    mv "model_layer/out/$name" /layer && chmod -R a+rX /layer

# What is biggest and changes least comes first, so that a push of new code sends none of it.
FROM function AS cpu
COPY --from=layer /layer/ /opt/model/
COPY requirements.cpu.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.cpu.lock && chmod a+r requirements.cpu.lock
COPY --from=code ${LAMBDA_TASK_ROOT}/handler/ handler/
COPY --from=code /entry.sh /entry.sh

# layer-gpu, gpu: the same for a GPU. They come last: the classic builder makes every stage before the one it is asked for.
FROM builder AS layer-gpu
ARG MODEL=bge-m3
ARG WEIGHTS=fp16
ARG CL100K=litellm
RUN case "$WEIGHTS" in fp16) name="$MODEL-cuda" ;; *) name="$MODEL-cuda-$WEIGHTS" ;; esac && \
    python -m model_layer build "$MODEL" --target cuda --weights "$WEIGHTS" --cl100k "$CL100K" --if-absent && \
    mv "model_layer/out/$name" /layer && chmod -R a+rX /layer

FROM function AS gpu
COPY --from=layer-gpu /layer/ /opt/model/
COPY requirements.gpu.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.gpu.lock && chmod a+r requirements.gpu.lock
COPY --from=code ${LAMBDA_TASK_ROOT}/handler/ handler/
COPY --from=code /entry.sh /entry.sh
# The host brings the driver: Lambda's Bottlerocket into a folder of its own, Cloud Run and others into /usr/local/nvidia.
# A GPU that is not there ends the start, wherever the image runs.
# Where the driver keeps what it compiles is said for itself, because Lambda takes HOME away.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility REQUIRE_GPU=1 CUDA_CACHE_PATH=/tmp/.nv \
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH}:/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia:/usr/local/nvidia/lib64
