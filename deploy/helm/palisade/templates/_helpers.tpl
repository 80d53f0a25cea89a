{{- define "palisade.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "palisade.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "palisade.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "palisade.selectorLabels" -}}
app.kubernetes.io/name: {{ include "palisade.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "palisade.labels" -}}
{{ include "palisade.selectorLabels" . }}
app.kubernetes.io/component: agent
{{ include "palisade.commonLabels" . }}
{{- end }}

{{- /* Those of what is about metrics. */ -}}
{{- define "palisade.metricsLabels" -}}
{{ include "palisade.selectorLabels" . }}
app.kubernetes.io/component: metrics
{{ include "palisade.commonLabels" . }}
{{- end }}

{{- /* Those of a pod that the DaemonSet does not select. */ -}}
{{- define "palisade.hookLabels" -}}
app.kubernetes.io/name: {{ include "palisade.name" . | trunc 53 | trimSuffix "-" }}-uninstall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: uninstall
{{ include "palisade.commonLabels" . }}
{{- end }}

{{- define "palisade.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "palisade.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: palisade
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "palisade.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "palisade.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "palisade.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "palisade.endpoint" -}}
host: {{ ternary "127.0.0.1" .Values.http.host (eq .Values.http.host "0.0.0.0") }}
port: {{ .Values.http.port }}
{{- end }}

{{- define "palisade.securityContext" -}}
{{- $context := deepCopy .Values.securityContext }}
{{- if .Values.sysResource }}
{{- $capabilities := $context.capabilities | default dict }}
{{- $added := append ($capabilities.add | default list) "SYS_RESOURCE" }}
{{- $_ := set $context "capabilities" (set $capabilities "add" $added) }}
{{- end }}
{{- with $context }}
{{- toYaml . }}
{{- end }}
{{- end }}
