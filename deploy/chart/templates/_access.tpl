{{- define "scorefront.readModels" -}}
- apiGroups: [""]
  resources: [services, secrets]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}

{{- define "scorefront.subjects" -}}
- kind: ServiceAccount
  name: {{ include "scorefront.name" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}
