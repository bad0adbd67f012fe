{{/* On which nodes the pods may be. */}}
{{- define "scorefront.placement" -}}
nodeSelector:
  {{- $selector := merge (deepCopy .Values.nodeSelector) (dict "kubernetes.io/os" "linux") }}
  {{- range $key, $value := $selector }}
  {{ $key | quote }}: {{ toString $value | quote }}
  {{- end }}
tolerations:
  {{- range $taint := list "ml.azure.com/amlarc" "ml.azure.com/amlarc-system" }}
  {{- range $effect := list "NoSchedule" "NoExecute" "PreferNoSchedule" }}
  - {key: {{ $taint }}, operator: Equal, value: "true", effect: {{ $effect }}}
  {{- end }}
  {{- end }}
  {{- with .Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
topologySpreadConstraints:
  # Counted for each revision by itself, so that a rolling update finds room where all nodes have a pod.
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    {{- if eq .Values.spreadOverNodes "hard" }}
    # With fewer nodes than this, every node counts as empty: none gets a second pod.
    minDomains: {{ include "scorefront.replicasMax" . }}
    whenUnsatisfiable: DoNotSchedule
    {{- else }}
    whenUnsatisfiable: ScheduleAnyway
    {{- end }}
    labelSelector:
      matchLabels: {{- include "scorefront.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "scorefront.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
