{{/* Names and labels. The gateway's own Service has the chart's full name: `config.advertise.service` refers to it. */}}

{{- define "cqlgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cqlgate.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cqlgate.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "cqlgate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cqlgate.labels" -}}
{{ include "cqlgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "cqlgate.image" -}}
{{- with .Values.image -}}
{{- if not .repository -}}
{{- fail "image.repository: no image of cqlgate is published. Build deploy/Dockerfile, push it, and name it: --set image.repository=registry.example.com/cqlgate" -}}
{{- end -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}
