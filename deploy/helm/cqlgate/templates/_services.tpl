{{/*
The Services of the CQL ports, as `services: [{name, first, last, annotations, …}]`: one, one for each of service.parts, or with
service.perNode one for each port. What a part does not say is as `service` says.
*/}}
{{- define "cqlgate.services" -}}
{{- $name := include "cqlgate.fullname" . -}}
{{- $service := .Values.service -}}
{{- $first := include "cqlgate.first" . | int -}}
{{- $last := include "cqlgate.last" . | int -}}
{{- $common := dict "annotations" $service.annotations "ip" $service.loadBalancerIP "sources" $service.loadBalancerSourceRanges "health" $service.healthCheckNodePort -}}
{{- $made := list -}}
{{- if $service.perNode -}}
{{- range $index, $port := untilStep $first (int (add1 $last)) 1 -}}
{{- $annotations := dict -}}
{{- range $key, $text := $service.annotations -}}
{{- $_ := set $annotations $key (replace "{index}" (toString $index) $text) -}}
{{- end -}}
{{- $own := dict "name" (printf "%s-%d" $name $index) "first" $port "last" $port "port" $service.perNodePort "annotations" $annotations -}}
{{- $made = append $made (merge $own $common) -}}
{{- end -}}
{{- else if $service.parts -}}
{{- range $service.parts -}}
{{- $ports := splitList "-" .ports -}}
{{- $own := dict "name" (printf "%s-%s" $name .name) "first" (first $ports | int) "last" (last $ports | int) "health" .healthCheckNodePort "ip" .loadBalancerIP -}}
{{- $_ := set $own "annotations" (merge (deepCopy (.annotations | default dict)) $service.annotations) -}}
{{- $_ := set $own "sources" (.loadBalancerSourceRanges | default $service.loadBalancerSourceRanges) -}}
{{- $made = append $made $own -}}
{{- end -}}
{{- else -}}
{{- $made = list (merge (dict "name" $name "first" $first "last" $last) $common) -}}
{{- end -}}
{{- dict "services" $made | toYaml -}}
{{- end -}}

{{/* What clients are told where config says neither advertise nor paths, as `advertise: …`: what these Services get. */}}
{{- define "cqlgate.advertise" -}}
{{- $name := include "cqlgate.fullname" . -}}
{{- if .Values.service.perNode -}}
{{- $ports := regexFind "[0-9]+(-[0-9]+)?$" .Values.config.listen -}}
{{- dict "advertise" (list (dict "ports" $ports "service" (printf "%s-{index}" $name) "port" (int .Values.service.perNodePort))) | toYaml -}}
{{- else if .Values.service.parts -}}
{{- $entries := list -}}
{{- range .Values.service.parts -}}
{{- $entries = append $entries (dict "ports" .ports "service" (printf "%s-%s" $name .name)) -}}
{{- end -}}
{{- dict "advertise" $entries | toYaml -}}
{{- else -}}
{{- dict "advertise" (dict "service" $name) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The Services whose status the gateway reads, by the file: of advertise, or of all paths, each {index} a name; with spaces between. */}}
{{- define "cqlgate.toldServices" -}}
{{- $config := fromYaml (include "cqlgate.config" .) -}}
{{- $told := list -}}
{{- with $config.advertise -}}
{{- $told = append $told . -}}
{{- end -}}
{{- range $config.paths -}}
{{- $told = append $told .advertise -}}
{{- end -}}
{{- $names := list -}}
{{- range $told -}}
{{- $entries := . -}}
{{- if kindIs "map" . -}}
{{- $entries = list . -}}
{{- end -}}
{{- if kindIs "slice" $entries -}}
{{- range $entries -}}
{{- $service := .service -}}
{{- if and $service (contains "{index}" $service) .ports -}}
{{- $ports := splitList "-" (toString .ports) -}}
{{- range $index, $_ := untilStep (first $ports | int) (last $ports | int | add1 | int) 1 -}}
{{- $names = append $names (replace "{index}" (toString $index) $service) -}}
{{- end -}}
{{- else if $service -}}
{{- $names = append $names $service -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- uniq $names | join " " -}}
{{- end -}}
