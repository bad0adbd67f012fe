{{/* Names and labels. Those of the pods are the ones that azureml-fe has: operators and their tools know them. */}}

{{- define "scorefront.name" -}}azureml-fe-v2{{- end }}

{{- define "scorefront.service" -}}azureml-fe{{- end }}

{{/* Of what lies outside the namespace of the release, where two releases could meet. */}}
{{- define "scorefront.outsideName" -}}scorefront-{{ .Release.Namespace }}{{- end }}

{{/* Must never change: a Deployment's selector cannot. */}}
{{- define "scorefront.selector" -}}
azuremlappname: azureml-fe
azuremlappversion: v2
{{- end }}

{{- define "scorefront.labels" -}}
{{ include "scorefront.selector" . }}
ml.azure.com/amlarc-system: "true"
app.kubernetes.io/name: scorefront
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: router
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "scorefront.image" -}}
{{- .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
