{# The image has bash, but neither curl nor wget. The HTTP status is 200 in any state, so the body is searched. #}
for model in {{ models | join(" ") }}; do
  exec 3<>/dev/tcp/127.0.0.1/8501 || exit 1
  printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' "$model" >&3
  grep -q '"state": "AVAILABLE"' <&3 || exit 1
done
