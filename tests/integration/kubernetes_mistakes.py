"""Mistakes in the manifests, one at a time: the file, what stands there, what is written instead,
and two parts of the line that has to tell."""

HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKERS = "spec.rayClusterConfig.workerGroupSpecs"
RAYSERVICE = "k8s/base/rayservice.yaml"
SERVE = "k8s/overlays/gpu/serve.yaml"
GPU = "k8s/overlays/gpu/kustomization.yaml"

MISTAKES = [
    # a wrong field, of a custom resource and of a core kind
    (
        RAYSERVICE,
        "rayVersion:",
        "rayversion:",
        f"{RAYSERVICE}: RayService/fairlane: spec.rayClusterConfig: ",
        "'rayversion' was unexpected",
    ),
    (
        RAYSERVICE,
        "imagePullPolicy: IfNotPresent\n              ports:\n                - {name: gcs",
        "imagePullPolice: IfNotPresent\n              ports:\n                - {name: gcs",
        f"{HEAD}.template.spec.containers[0]: ",
        "'imagePullPolice' was unexpected",
    ),
    (
        "k8s/base/services.yaml",
        "targetPort:",
        "targetport:",
        "k8s/base/services.yaml: Service/fairlane-admin: spec.ports[0]: ",
        "'targetport'",
    ),
    (
        "k8s/base/networkpolicies.yaml",
        "policyTypes: [Ingress]\n---",
        "policyType: [Ingress]\n---",
        "NetworkPolicy/fairlane-closed: spec: ",
        "'policyType'",
    ),
    (
        "k8s/components/gateway/httproute.yaml",
        "backendRequest: 0s",
        "backend: 0s",
        "HTTPRoute/fairlane: spec.rules[0].timeouts: ",
        "'backend' was unexpected",
    ),
    (
        "k8s/components/monitoring/podmonitor.yaml",
        "interval: 15s",
        "interval: often",
        "PodMonitor/fairlane: spec.podMetricsEndpoints[0].interval: ",
        "'often' does not match",
    ),
    # a bad quantity
    (
        RAYSERVICE,
        'limits: {cpu: "2", memory: 4Gi}',
        'limits: {cpu: "2", memory: 4GiB}',
        f"{HEAD}.template.spec.containers[0].resources.limits.memory: ",
        "",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "{storage: 8Gi}",
        "{storage: 8 Gi}",
        "k8s/valkey/base/valkey.yaml: StatefulSet/fairlane-gcs-store: "
        "spec.volumeClaimTemplates[0].spec.resources.requests.storage: ",
        "'8 Gi' is no quantity",
    ),
    # what is named and not there
    (
        "k8s/secrets.sh",
        "make fairlane-grant-key",
        "make grant-key",
        f"{WORKERS}[0].template.spec.containers[0].env[5].valueFrom.secretKeyRef: ",
        "no secret fairlane-grant-key",
    ),
    (
        "k8s/secrets.sh",
        '"password=$(random)" "sentinel',
        '"pass=$(random)" "sentinel',
        f"{SERVE}",
        "/etc/fairlane/store/password is in no volume",
    ),
    (
        RAYSERVICE,
        "configMap: {name: fairlane-clients}",
        "configMap: {name: clients}",
        f"{WORKERS}[0].template.spec.volumes[4].configMap: ",
        "no configMap clients is made here",
    ),
    (
        RAYSERVICE,
        "{name: tmp, mountPath: /tmp}",
        "{name: temp, mountPath: /tmp}",
        f"{HEAD}.template.spec.containers[0].volumeMounts[0]: ",
        "no volume is called temp",
    ),
    (
        "k8s/base/services.yaml",
        "component: router",
        "component: routers",
        "Service/fairlane-admin: spec.selector: ",
        "no pod has these labels",
    ),
    (
        "k8s/base/services.yaml",
        "targetPort: admin",
        "targetPort: adm",
        "Service/fairlane-admin: spec.ports[0].targetPort: ",
        "no port adm",
    ),
    (
        "k8s/base/disruption.yaml",
        "component: replica",
        "component: engine",
        "PodDisruptionBudget/fairlane-replicas: spec.selector: ",
        "no pod has these labels",
    ),
    (
        "k8s/components/store/networkpolicy.yaml",
        "port: 6379",
        "port: 6380",
        "NetworkPolicy/fairlane-store: spec.ingress[0].ports[0]: ",
        "no port 6380",
    ),
    (
        "k8s/components/store/networkpolicy.yaml",
        "values: [router, replica]",
        "values: [proxy]",
        "NetworkPolicy/fairlane-store: spec.ingress[0].from[0].podSelector: ",
        "no pod",
    ),
    (
        "k8s/components/monitoring/podmonitor.yaml",
        "port: proxy-metrics",
        "port: haproxy",
        "PodMonitor/fairlane: spec.podMetricsEndpoints[1].port: ",
        "haproxy",
    ),
    (
        "k8s/components/monitoring/kustomization.yaml",
        "FAIRLANE_HAPROXY_METRICS_HOST",
        "FAIRLANE_METRICS_HOST",
        "PodMonitor/fairlane: spec.podMetricsEndpoints[1].port: ",
        "it listens on loopback",
    ),
    (
        "k8s/components/gateway/httproute.yaml",
        "port: 8000",
        "port: 80",
        "HTTPRoute/fairlane: spec.rules[0].backendRefs[0]: ",
        "no Service fairlane has a port 80",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "serviceName: store",
        "serviceName: valkey",
        "StatefulSet/fairlane-gcs-store: spec.serviceName: ",
        "no Service is called valkey",
    ),
    (
        "deployments/serve.env",
        "RAY_SERVE_ENABLE_HA_PROXY=1",
        "",
        f"{HEAD}.template.spec.containers[0].envFrom: ",
        "lacks RAY_SERVE_ENABLE_HA_PROXY",
    ),
    # what the operator refuses
    (RAYSERVICE, 'num-cpus: "0"', 'num-cpus: "1"', f"{HEAD}.rayStartParams.num-cpus: ", '"0"'),
    (RAYSERVICE, 'rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "rayVersion: ", "2.60.0"),
    (
        RAYSERVICE,
        "{name: dashboard, containerPort: 8265}",
        "{name: dash, containerPort: 8265}",
        f"{HEAD}.template.spec.containers[0].ports: ",
        "name: dashboard",
    ),
    (
        RAYSERVICE,
        "{type: NewCluster}",
        "{type: Recreate}",
        "spec.upgradeStrategy.type: ",
        "NewCluster",
    ),
    (RAYSERVICE, "minReplicas: 2", "minReplicas: 3", f"{WORKERS}[0].replicas: ", "minReplicas"),
    (RAYSERVICE, "mode: token", "mode: disabled", "authOptions.mode: ", "token"),
    # security
    (
        RAYSERVICE,
        "capabilities: {drop: [ALL]}",
        "capabilities: {drop: [NET_RAW]}",
        f"{HEAD}.template.spec.containers[0].securityContext.capabilities: ",
        "drop ALL",
    ),
    (
        "k8s/valkey/base/valkey.yaml",
        "valkey/valkey:9.1.2",
        "valkey/valkey:latest",
        "StatefulSet/fairlane-gcs-store: spec.template.spec.containers[0].image: ",
        "has no version",
    ),
    # the application
    (
        SERVE,
        "policy: vtc",
        "polices: vtc",
        f"{SERVE}: RayService/fairlane: spec.serveConfigV2:",
        "unknown field; did you mean `policy`?",
    ),
    (SERVE, "proxy_location", "proxy_locations", f"{SERVE}: ", "Serve knows no such field"),
    (SERVE, "fairlane-store:6379", "valkey:6379", "spec.serveConfigV2: ", "no Service valkey"),
    (
        SERVE,
        "fairlane-store:6379",
        "fairlane-gcs-store:6379",
        "spec.serveConfigV2: ",
        "keep them apart",
    ),
    (SERVE, "drain_s: 600", "drain_s: 900", "spec.serveConfigV2: ", "would cut streams"),
    (SERVE, "port: 8001", "port: 8002", "spec.serveConfigV2: ", "admin.port"),
    (SERVE, "port: 8000", "port: 8080", "spec.serveConfigV2: ", "http_options.port"),
    (SERVE, "clients/clients.yaml", "clients/people.yaml", "spec.serveConfigV2: ", "in no volume"),
]
