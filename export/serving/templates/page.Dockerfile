# The client and the web page. Build the package's wheel into this folder first: README.md, Start.
FROM python:3.13-slim-bookworm
ENV HOME=/tmp PYTHONUNBUFFERED=1
COPY {{ wheel }} /opt/
RUN pip install --no-cache-dir "/opt/{{ wheel }}[web]"
USER {{ user }}:{{ user }}
EXPOSE 7860
ENTRYPOINT ["emotion-ai"]
CMD ["web", "--server", "http://server:8501", "--host", "0.0.0.0"]
