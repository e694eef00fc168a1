{{/*
The gateway's file: `config` as it stands in the values, and under it what this chart knows better than the file's own
defaults: the address to advertise, where secrets are mounted, a directory that can be written. A key in `config` always wins.
Paths are relative to the file, /etc/cqlgate/cqlgate.yaml.
*/}}
{{- define "cqlgate.config" -}}
{{- $computed := dict -}}
{{- if eq .Values.service.type "LoadBalancer" -}}
{{- if not (or (hasKey .Values.config "advertise") (hasKey .Values.config "paths")) -}}
{{- $computed = include "cqlgate.advertise" . | fromYaml -}}
{{- end -}}
{{- end -}}
{{- if include "cqlgate.kubernetes" . -}}
{{- $kubernetes := dict "service" "cassandra" -}}
{{- if .Values.state.enabled -}}
{{- $_ := set $kubernetes "snapshot_file" "/var/lib/cqlgate/snapshot.json" -}}
{{- end -}}
{{- if not (dig "discovery" "kubernetes" "statefulSets" (list) .Values.config) -}}
{{- $_ := set $kubernetes "ledger" (printf "%s-ports" (include "cqlgate.fullname" .)) -}}
{{- end -}}
{{- if not .Values.rbac.watchPods -}}
{{- $_ := set $kubernetes "watch_pods" false -}}
{{- end -}}
{{- $_ := set $computed "discovery" (dict "kubernetes" $kubernetes) -}}
{{- else if and .Values.config.discovery.contact_points .Values.state.enabled -}}
{{- $_ := set $computed "discovery" (dict "state_file" "/var/lib/cqlgate/ports.json") -}}
{{- end -}}
{{- if .Values.credentials.secret -}}
{{- $_ := set $computed "probe" (dict "username" "cqlgate" "password_file" "credentials/password") -}}
{{- end -}}
{{- $tls := dict -}}
{{- if include "cqlgate.clientTlsSecret" . -}}
{{- $clients := dict "certificate" "tls/clients/tls.crt" "key" "tls/clients/tls.key" -}}
{{- with .Values.tls.clients.auth -}}
{{- if .secret -}}
{{- $auth := dict "mode" "required" "ca" "tls/auth/ca.crt" -}}
{{- if .crl -}}
{{- $_ := set $auth "crl" "tls/auth/crl.pem" -}}
{{- end -}}
{{- $_ := set $clients "client_auth" $auth -}}
{{- end -}}
{{- end -}}
{{- $_ := set $tls "clients" $clients -}}
{{- end -}}
{{- with .Values.tls.nodes -}}
{{- if .secret -}}
{{- $nodes := dict "ca" "tls/nodes/ca.crt" -}}
{{- if .certificate -}}
{{- $_ := set $nodes "certificate" "tls/nodes/tls.crt" -}}
{{- $_ := set $nodes "key" "tls/nodes/tls.key" -}}
{{- end -}}
{{- $identities := list -}}
{{- range $index, $identity := .identities -}}
{{- $at := printf "tls/identities/%d" $index -}}
{{- $identities = append $identities (dict "client" $identity.client "certificate" (printf "%s/tls.crt" $at) "key" (printf "%s/tls.key" $at)) -}}
{{- end -}}
{{- if $identities -}}
{{- $_ := set $nodes "identities" $identities -}}
{{- end -}}
{{- $_ := set $tls "nodes" $nodes -}}
{{- end -}}
{{- end -}}
{{- if $tls -}}
{{- $_ := set $computed "tls" $tls -}}
{{- end -}}
{{- mustMergeOverwrite $computed (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/*
What a change of the file rolls the pods for, by rollOut: of start what a running gateway cannot take, the rest of which it reads again by
itself; of always the whole file; of never nothing.
*/}}
{{- define "cqlgate.rollsFor" -}}
{{- if eq .Values.rollOut "always" -}}
{{- include "cqlgate.config" . -}}
{{- else if eq .Values.rollOut "start" -}}
{{- $config := fromYaml (include "cqlgate.config" .) -}}
{{- $discovery := dict -}}
{{- range $way, $of := $config.discovery -}}
{{- if eq $way "kubernetes" -}}
{{- $_ := set $discovery $way (omit $of "pins" "statefulSets" "first_ordinal") -}}
{{- else if eq $way "state_file" -}}
{{- $_ := set $discovery $way $of -}}
{{- else if ne $way "allow" -}}
{{- $_ := set $discovery $way true -}}
{{- end -}}
{{- end -}}
{{- dict "listen" $config.listen "admin" $config.admin "format" (dig "log" "format" "auto" $config) "discovery" $discovery | toYaml -}}
{{- end -}}
{{- end -}}

{{/* Not empty when nodes come from the Kubernetes API: the way unless another one is given. */}}
{{- define "cqlgate.kubernetes" -}}
{{- $discovery := .Values.config.discovery | default dict -}}
{{- if not (or $discovery.nodes $discovery.contact_points $discovery.dns) -}}yes{{- end -}}
{{- end -}}

{{/* Not empty when the gateway asks the Kubernetes API for anything. */}}
{{- define "cqlgate.api" -}}
{{- if or (include "cqlgate.kubernetes" .) (include "cqlgate.toldServices" .) -}}yes{{- end -}}
{{- end -}}

{{/* The namespace and headless Service of Cassandra. */}}
{{- define "cqlgate.nodesNamespace" -}}
{{- dig "discovery" "kubernetes" "namespace" .Release.Namespace .Values.config -}}
{{- end -}}
{{- define "cqlgate.nodesService" -}}
{{- dig "discovery" "kubernetes" "service" "cassandra" .Values.config -}}
{{- end -}}

{{/* The nodes' own ports, as the NetworkPolicy lets them out, with spaces between. A port's name says no number. */}}
{{- define "cqlgate.nodePorts" -}}
{{- $port := dig "discovery" "kubernetes" "port" 9042 .Values.config -}}
{{- if .Values.networkPolicy.nodes.ports -}}
{{- .Values.networkPolicy.nodes.ports | join " " -}}
{{- else -}}
{{- ternary $port 9042 (has (kindOf $port) (list "int" "int64" "float64")) -}}
{{- end -}}
{{- end -}}

{{/* Whose load balancer it is, as far as the values say. */}}
{{- define "cqlgate.provider" -}}
{{- if .Values.loadBalancer.provider -}}
{{- .Values.loadBalancer.provider -}}
{{- else if or (eq .Values.service.loadBalancerClass "service.k8s.aws/nlb") (keys .Values.service.annotations | join " " | contains "service.beta.kubernetes.io/aws-load-balancer-") -}}
aws
{{- end -}}
{{- end -}}

{{- define "cqlgate.clientTlsSecret" -}}
{{- if .Values.tls.clients.secret -}}
{{- .Values.tls.clients.secret -}}
{{- else if .Values.certificate.create -}}
{{- include "cqlgate.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/* First and last port of config.listen, and how many they are. */}}
{{- define "cqlgate.first" -}}
{{- regexFind "[0-9]+(-[0-9]+)?$" .Values.config.listen | splitList "-" | first -}}
{{- end -}}
{{- define "cqlgate.last" -}}
{{- regexFind "[0-9]+(-[0-9]+)?$" .Values.config.listen | splitList "-" | last -}}
{{- end -}}
{{- define "cqlgate.count" -}}
{{- add1 (sub (int (include "cqlgate.last" .)) (int (include "cqlgate.first" .))) -}}
{{- end -}}
{{- define "cqlgate.adminPort" -}}
{{- regexFind "[0-9]+$" .Values.config.admin -}}
{{- end -}}

{{/* Whole seconds, rounded up, of a duration such as 500ms, 10s or 1m 30s: of a key of config.drain, or its default. */}}
{{- define "cqlgate.seconds" -}}
{{- $text := dig "drain" .key .default .config | toString -}}
{{- if not (regexMatch "^(0|([0-9]+(\\.[0-9]+)? ?(ms|s|m|h) ?)+)$" $text) -}}
{{- fail (printf "config.drain.%s: %q: the chart reads durations such as 500ms, 10s or 1m 30s" .key $text) -}}
{{- end -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+ ?(ms|s|m|h)" $text -1 -}}
{{- $sum = addf $sum (mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "(ms|s|m|h)$" .))) -}}
{{- end -}}
{{- ceil $sum | int -}}
{{- end -}}

{{/*
Seconds from SIGTERM to SIGKILL: drain.delay and drain.deadline one after the other (drain.spread and drain.linger end at the deadline),
and ten to write the last lines. What is not in the values has the gateway's own default.
*/}}
{{- define "cqlgate.grace" -}}
{{- $delay := include "cqlgate.seconds" (dict "key" "delay" "default" "0s" "config" .Values.config) | int -}}
{{- $deadline := include "cqlgate.seconds" (dict "key" "deadline" "default" "30s" "config" .Values.config) | int -}}
{{- $needed := add $delay $deadline -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if not (kindIs "invalid" $given) -}}
{{- if le (int $given) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds %d would cut the drain, which takes up to %d s: config.drain.delay + config.drain.deadline" (int $given) (int $needed)) -}}
{{- end -}}
{{- int $given -}}
{{- else -}}
{{- add $needed 10 -}}
{{- end -}}
{{- end -}}
