{{/* What the values must not say together; `fail` stops the installation with the reason. */}}
{{- define "cqlgate.checks" -}}
{{- $first := include "cqlgate.first" . | int -}}
{{- $last := include "cqlgate.last" . | int -}}
{{- $count := include "cqlgate.count" . | int -}}
{{- $admin := include "cqlgate.adminPort" . | int -}}
{{- if or (lt $last $first) (gt $last 65535) (lt $first 1) -}}
{{- fail (printf "config.listen %s: the range must end after its begin and before 65536" .Values.config.listen) -}}
{{- end -}}
{{- if and (ge $admin $first) (le $admin $last) -}}
{{- fail (printf "config.admin %s: the port is within config.listen %s" .Values.config.admin .Values.config.listen) -}}
{{- end -}}
{{- if hasPrefix "127." .Values.config.admin -}}
{{- fail "config.admin: the kubelet's probes come from outside the pod, 127.0.0.1 does not answer them: 0.0.0.0:9180 or [::]:9180" -}}
{{- end -}}
{{- range (dig "discovery" "kubernetes" "statefulSets" list .Values.config) -}}
{{- $ports := .ports | default "" | toString | splitList "-" -}}
{{- if and (first $ports) (or (lt (int (first $ports)) $first) (gt (int (last $ports)) $last)) -}}
{{- fail (printf "config.discovery.kubernetes.statefulSets: ports %s of %s are outside config.listen %s" .ports .name $.Values.config.listen) -}}
{{- end -}}
{{- end -}}
{{- if and (dig "discovery" "contact_points" list .Values.config) (gt (int .Values.replicas) 1) -}}
{{- fail (printf "config.discovery.contact_points: %d replicas would each give ports in an order of their own. Use discovery.kubernetes or discovery.nodes, or replicas: 1" (int .Values.replicas)) -}}
{{- end -}}
{{- if and (ne .Values.service.type "LoadBalancer") (not .Values.config.advertise) -}}
{{- fail (printf "service.type %s: config.advertise must say what clients dial" .Values.service.type) -}}
{{- end -}}
{{- if and .Values.certificate.create (not (or .Values.certificate.dnsNames .Values.certificate.ipAddresses)) -}}
{{- fail "certificate: give dnsNames or ipAddresses, what clients dial: the address of a load balancer is not known before it exists" -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- $out := include "cqlgate.nodePorts" . | splitList " " -}}
{{- $where := dict -}}
{{- range (dig "discovery" "nodes" list .Values.config) -}}
{{- $_ := set $where (.address | toString) "nodes" -}}
{{- end -}}
{{- range (dig "discovery" "contact_points" list .Values.config) -}}
{{- $_ := set $where (. | toString) "contact_points" -}}
{{- end -}}
{{- range $address, $key := $where -}}
{{- $port := regexReplaceAll "^(\\[.*\\]|[^:]*):([0-9]+)$" $address "${2}" -}}
{{- if eq $port $address -}}{{- $port = "9042" -}}{{- end -}}
{{- if not (has $port $out) -}}
{{- fail (printf "config.discovery.%s: %s has port %s, and the NetworkPolicy lets the gateway out to port %s alone: networkPolicy.nodes.ports must have it" $key $address $port (join ", " $out)) -}}
{{- end -}}
{{- end -}}
{{- $port := dig "discovery" "kubernetes" "port" "" .Values.config -}}
{{- if and (has (kindOf $port) (list "int" "int64" "float64")) (not (has (toString $port) $out)) -}}
{{- fail (printf "config.discovery.kubernetes.port %v: the NetworkPolicy lets the gateway out to port %s alone: networkPolicy.nodes.ports must have it" $port (join ", " $out)) -}}
{{- end -}}
{{- end -}}
{{- $health := get .Values.service.annotations "service.beta.kubernetes.io/aws-load-balancer-healthcheck-port" -}}
{{- if and (regexMatch "^[0-9]+$" $health) (ne (int $health) $admin) -}}
{{- fail (printf "service.annotations: the load balancer's health check asks port %s, and config.admin is %s" $health .Values.config.admin) -}}
{{- end -}}
{{- if and .Values.service.healthCheckNodePort (or (ne .Values.service.type "LoadBalancer") (ne .Values.service.externalTrafficPolicy "Local")) -}}
{{- fail (printf "service.healthCheckNodePort %d: there is none without service.type LoadBalancer and externalTrafficPolicy Local" (int .Values.service.healthCheckNodePort)) -}}
{{- end -}}
{{- if eq .Values.service.type "LoadBalancer" -}}
{{- $provider := include "cqlgate.provider" . -}}
{{- if and (eq $provider "aws") (gt $count 50) -}}
{{- fail (printf "config.listen %s is %d ports, and an AWS Network Load Balancer has at most 50 listeners, a quota that cannot be raised: use at most 50 ports, or several releases with a part of the nodes each" .Values.config.listen $count) -}}
{{- end -}}
{{- if and (eq $provider "azure") (gt $count 300) -}}
{{- fail (printf "config.listen %s is %d ports, and an Azure load balancer has at most 300 rules for each network interface" .Values.config.listen $count) -}}
{{- end -}}
{{- if .Values.service.allocateLoadBalancerNodePorts -}}
{{- if gt $count 2000 -}}
{{- fail (printf "config.listen %s is %d ports, and each takes one of the cluster's 2768 node ports: service.allocateLoadBalancerNodePorts: false where the load balancer reaches pods directly" .Values.config.listen $count) -}}
{{- end -}}
{{- else if and (eq $provider "aws") (ne (get .Values.service.annotations "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type" | default "instance") "ip") -}}
{{- fail "service.allocateLoadBalancerNodePorts: false needs the target type ip on AWS: instance targets are reached through node ports" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is allowed and will surprise; shown by NOTES.txt. */}}
{{- define "cqlgate.warnings" -}}
{{- $count := include "cqlgate.count" . | int -}}
{{- $provider := include "cqlgate.provider" . -}}
{{- if eq .Values.service.type "LoadBalancer" -}}
{{- if and (eq $provider "") (gt $count 50) }}
WARNING: {{ $count }} ports, and loadBalancer.provider is not set. An AWS Network Load Balancer has at most 50 listeners; set the
provider (aws, gke, gke-internal, azure, metallb) to have its limits checked.
{{- end }}
{{- if and (eq $provider "aws") (gt $count 45) (le $count 50) }}
WARNING: {{ $count }} of the 50 listeners of an AWS Network Load Balancer are used: hardly any is left.
{{- end }}
{{- if and (eq $provider "gke-internal") (gt $count 5) }}
NOTE: a forwarding rule of a GKE internal load balancer names at most 5 ports; with {{ $count }} it forwards all ports of its address,
which therefore cannot be shared with another Service.
{{- end }}
{{- if and (eq $provider "gke") (gt $count 5) }}
NOTE: GKE makes one forwarding rule of the whole range. A change of config.listen replaces it: some 30 s without traffic on all ports.
{{- end }}
{{- if and .Values.service.allocateLoadBalancerNodePorts (gt $count 300) }}
WARNING: {{ $count }} ports take as many of the cluster's 2768 node ports; service.allocateLoadBalancerNodePorts: false avoids it
where the load balancer reaches pods directly.
{{- end }}
{{- end }}
{{- if lt (int .Values.replicas) 2 }}
WARNING: one replica: every connection is lost when its pod moves.
{{- end }}
{{- if and (include "cqlgate.kubernetes" .) (not .Values.rbac.watchPods) }}
NOTE: rbac.watchPods is false: the gateway sees EndpointSlices alone, and cannot tell a pod that is away for a moment from one that was
removed for good, nor the StatefulSet's pods from one that somebody made with such a name.
{{- if and .Values.credentials.secret (not .Values.tls.nodes.secret) (ne (dig "probe" "plain_password" "listed" .Values.config) "always") }}
WARNING: over plain TCP no pod is sent the password in {{ .Values.credentials.secret }} then: set tls.nodes.secret, or config.probe.plain_password: always.
{{- end }}
{{- end }}
{{- end -}}
