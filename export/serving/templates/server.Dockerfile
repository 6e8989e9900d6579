# TensorFlow Serving with the models, from the folder above this one:
# docker build --file deployment/server.Dockerfile --tag {{ baked }}:{{ newest }} .
FROM {{ image }}
COPY --chmod=755 [".", {{ deployment.inside | dockerfile | quoted }}]
USER {{ user }}:{{ user }}
EXPOSE 8500 8501
ENTRYPOINT [ \
    "tensorflow_model_server"{% for flag in deployment.flags %}, \
    {{ flag | quoted }}{% endfor %} \
]
