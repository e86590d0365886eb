# genprior with the CPU build of PyTorch:
#   docker build -t genprior . && docker run --rm -v "$PWD:/images" genprior denoise photo.png
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir /src && rm -rf /src
WORKDIR /images
ENTRYPOINT ["genprior"]
