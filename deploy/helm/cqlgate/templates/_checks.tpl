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
{{- if and (ne .Values.service.type "LoadBalancer") (not (or .Values.config.advertise .Values.config.paths)) -}}
{{- fail (printf "service.type %s: config.advertise must say what clients dial, or config.paths" .Values.service.type) -}}
{{- end -}}
{{- if and .Values.config.advertise .Values.config.paths -}}
{{- fail "config.paths: each path has an advertise of its own: leave out config.advertise" -}}
{{- end -}}
{{- include "cqlgate.checkServices" . -}}
{{- $services := (include "cqlgate.services" . | fromYaml).services -}}
{{- include "cqlgate.checkPaths" (dict "services" $services "root" .) -}}
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
{{- range $services -}}
{{- $health := get .annotations "service.beta.kubernetes.io/aws-load-balancer-healthcheck-port" -}}
{{- if and (regexMatch "^[0-9]+$" $health) (ne (int $health) $admin) -}}
{{- fail (printf "service.annotations: the load balancer's health check asks port %s, and config.admin is %s" $health $.Values.config.admin) -}}
{{- end -}}
{{- if and .health (or (ne $.Values.service.type "LoadBalancer") (ne $.Values.service.externalTrafficPolicy "Local")) -}}
{{- fail (printf "service.healthCheckNodePort %d: there is none without service.type LoadBalancer and externalTrafficPolicy Local" (int .health)) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.service.type "LoadBalancer" -}}
{{- $provider := include "cqlgate.provider" . -}}
{{- range $services -}}
{{- $listeners := sub (add1 (int .last)) (int .first) -}}
{{- if and (eq $provider "aws") (gt $listeners 50) -}}
{{- if $.Values.service.parts -}}
{{- fail (printf "service.parts: %s has %d ports, and an AWS Network Load Balancer has at most 50 listeners, a quota that cannot be raised: make it several parts" .name $listeners) -}}
{{- end -}}
{{- fail (printf "config.listen %s is %d ports, and an AWS Network Load Balancer has at most 50 listeners, a quota that cannot be raised: use at most 50 ports, or service.parts, each a load balancer of its own for at most 50 of them" $.Values.config.listen $listeners) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $provider "azure") (gt $count 300) -}}
{{- fail (printf "config.listen %s is %d ports, and an Azure load balancer has at most 300 rules for each network interface" .Values.config.listen $count) -}}
{{- end -}}
{{- if .Values.service.allocateLoadBalancerNodePorts -}}
{{- if gt $count 2000 -}}
{{- fail (printf "config.listen %s is %d ports, and each takes one of the cluster's 2768 node ports: service.allocateLoadBalancerNodePorts: false where the load balancer reaches pods directly" .Values.config.listen $count) -}}
{{- end -}}
{{- else if eq $provider "aws" -}}
{{- range $services -}}
{{- if ne (include "cqlgate.awsTargets" .) "ip" -}}
{{- fail "service.allocateLoadBalancerNodePorts: false needs the target type ip on AWS: instance targets are reached through node ports" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How AWS reaches the pods behind one of cqlgate.services: instance or ip. */}}
{{- define "cqlgate.awsTargets" -}}
{{- get .annotations "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type" | default "instance" -}}
{{- end -}}

{{/* Which Services there are: each port of config.listen is in one. */}}
{{- define "cqlgate.checkServices" -}}
{{- $service := .Values.service -}}
{{- $first := include "cqlgate.first" . | int -}}
{{- $last := include "cqlgate.last" . | int -}}
{{- if and $service.perNode $service.parts -}}
{{- fail "service.perNode and service.parts exclude each other: a Service for each port is a part for each" -}}
{{- end -}}
{{- if and (or $service.perNode $service.parts) (ne $service.type "LoadBalancer") -}}
{{- fail (printf "service.%s: more than one Service is for service.type LoadBalancer, and here it is %s" (ternary "perNode" "parts" $service.perNode) $service.type) -}}
{{- end -}}
{{- if and (or $service.perNode $service.parts) $service.loadBalancerIP -}}
{{- fail (printf "service.loadBalancerIP %s: several Services cannot have one address: %s" $service.loadBalancerIP (ternary "with {index} in service.annotations each has its own" "give it to one of service.parts" $service.perNode)) -}}
{{- end -}}
{{- if and (or $service.perNode $service.parts) $service.healthCheckNodePort -}}
{{- fail (printf "service.healthCheckNodePort %d: several Services cannot have one: leave it out, or give it to one of service.parts" (int $service.healthCheckNodePort)) -}}
{{- end -}}
{{- if eq $service.type "NodePort" -}}
{{- if not $service.firstNodePort -}}
{{- fail "service.type NodePort: service.firstNodePort must say which: numbers that the cluster chooses are not known beforehand, and clients are told them" -}}
{{- end -}}
{{- if gt (add (int $service.firstNodePort) (sub $last $first)) 65535 -}}
{{- fail (printf "service.firstNodePort %d: with the ports of config.listen %s it ends beyond 65535" (int $service.firstNodePort) .Values.config.listen) -}}
{{- end -}}
{{- else if $service.firstNodePort -}}
{{- fail (printf "service.firstNodePort %d: only with service.type NodePort" (int $service.firstNodePort)) -}}
{{- end -}}
{{- $parts := dict -}}
{{- $names := list "admin" -}}
{{- range $service.parts -}}
{{- if has .name $names -}}
{{- fail (printf "service.parts: the name %s is taken already" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- $ports := splitList "-" .ports -}}
{{- $from := first $ports | int -}}
{{- $to := last $ports | int -}}
{{- if or (lt $to $from) (lt $from $first) (gt $to $last) -}}
{{- fail (printf "service.parts: ports %s of %s are outside config.listen %s" .ports .name $.Values.config.listen) -}}
{{- end -}}
{{- $at := printf "%05d" $from -}}
{{- if hasKey $parts $at -}}
{{- fail (printf "service.parts: %s and %s both have port %d" (get $parts $at).name .name $from) -}}
{{- end -}}
{{- $_ := set $parts $at (dict "name" .name "from" $from "to" $to) -}}
{{- end -}}
{{- $next := $first -}}
{{- $before := "" -}}
{{- range keys $parts | sortAlpha -}}
{{- $part := get $parts . -}}
{{- if lt $part.from $next -}}
{{- fail (printf "service.parts: %s and %s both have port %d" $before $part.name $part.from) -}}
{{- else if gt $part.from $next -}}
{{- fail (printf "service.parts: none has port %d, which config.listen %s has" $next $.Values.config.listen) -}}
{{- end -}}
{{- $next = add1 $part.to | int -}}
{{- $before = $part.name -}}
{{- end -}}
{{- if and $parts (le $next $last) -}}
{{- fail (printf "service.parts: none has port %d, which config.listen %s has" $next .Values.config.listen) -}}
{{- end -}}
{{- end -}}

{{/* What paths go by must reach the gateway: the clients' own addresses, or the load balancer's header. */}}
{{- define "cqlgate.checkPaths" -}}
{{- $services := .services -}}
{{- $values := .root.Values -}}
{{- $mode := dig "proxy_protocol" "mode" "off" $values.config -}}
{{- range $values.config.paths -}}
{{- if and .proxy (eq $mode "off") -}}
{{- fail (printf "config.paths: %s goes by what the load balancer's header says, and none is read: config.proxy_protocol" .name) -}}
{{- end -}}
{{- if and .from (eq $mode "off") (ne $values.service.type "ClusterIP") -}}
{{- $name := .name -}}
{{- $provider := include "cqlgate.provider" $.root -}}
{{- range $services -}}
{{- if and (eq $provider "aws") (eq (include "cqlgate.awsTargets" .) "ip") -}}
{{- if not (contains "preserve_client_ip.enabled=true" (get .annotations "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes")) -}}
{{- fail (printf "config.paths: %s goes by clients' addresses, and an AWS load balancer with ip targets hides them: config.proxy_protocol.mode, or preserve_client_ip.enabled=true in the annotation service.beta.kubernetes.io/aws-load-balancer-target-group-attributes" $name) -}}
{{- end -}}
{{- else if ne $values.service.externalTrafficPolicy "Local" -}}
{{- fail (printf "config.paths: %s goes by clients' addresses, and service.externalTrafficPolicy Cluster shows those of machines in their place: Local, or config.proxy_protocol.mode" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is allowed and will surprise; shown by NOTES.txt. */}}
{{- define "cqlgate.warnings" -}}
{{- $count := include "cqlgate.count" . | int -}}
{{- $provider := include "cqlgate.provider" . -}}
{{- $service := .Values.service -}}
{{- $made := (include "cqlgate.services" . | fromYaml).services -}}
{{- $widest := 0 -}}
{{- range $made -}}
{{- $widest = max $widest (sub (add1 (int .last)) (int .first)) | int -}}
{{- end -}}
{{- if eq .Values.service.type "LoadBalancer" -}}
{{- if and (eq $provider "") (gt $widest 50) }}
WARNING: {{ $widest }} ports, and loadBalancer.provider is not set. An AWS Network Load Balancer has at most 50 listeners; set the
provider (aws, gke, gke-internal, azure, metallb) to have its limits checked.
{{- end }}
{{- if and (eq $provider "aws") (gt $widest 45) (not $service.parts) }}
WARNING: {{ $widest }} of the 50 listeners of an AWS Network Load Balancer are used: hardly any is left.
{{- end }}
{{- if and (eq $provider "gke-internal") (gt $widest 5) }}
NOTE: a forwarding rule of a GKE internal load balancer names at most 5 ports; with {{ $widest }} it forwards all ports of its address,
which therefore cannot be shared with another Service.
{{- end }}
{{- if and (eq $provider "gke") (gt $widest 5) }}
NOTE: GKE makes one forwarding rule of the whole range. A change of config.listen replaces it: some 30 s without traffic on all ports.
{{- end }}
{{- if gt (len $made) 1 }}
NOTE: {{ len $made }} Services of type LoadBalancer, each with an address of its own, and on most clouds each is paid for and counts against a quota
of load balancers.
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
