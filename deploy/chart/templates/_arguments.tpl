{{/* The command line of the router, as items of a list. */}}
{{- define "scorefront.arguments" -}}
- serve
- --listen={{ if include "scorefront.listens" . }}{{ .Values.address }}:8080{{ else }}off{{ end }}
{{- if .Values.sslSecret }}
- --listen-tls={{ .Values.address }}:8443
- --tls-cert=/etc/scorefront/tls
- --tls-key=/etc/scorefront/tls
{{- end }}
{{- with include "scorefront.redirect" . }}
- --redirect-to-https={{ . }}
{{- end }}
- --admin={{ .Values.address }}:9090
{{- range .Values.modelNamespaces }}
- --namespace={{ . }}
{{- end }}
{{- if .Values.stateFile.enabled }}
- --state-file=/var/lib/scorefront/world.json
{{- end }}
- --drain-grace-ms={{ mul .Values.drain.graceSeconds 1000 }}
- --drain-timeout-ms={{ mul .Values.drain.timeoutSeconds 1000 }}
{{- range $key, $value := .Values.settings }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%v" $key . | quote }}
{{- end }}
{{- else if and (kindIs "bool" $value) (has $key (list "access-log" "log-level" "proxy-protocol")) }}
{{- /* Without quotes, "off" is false in YAML; the schema lets no true come here. */}}
- {{ printf "--%s=off" $key | quote }}
{{- else if and (kindIs "float64" $value) (eq $value (floor $value)) }}
- {{ printf "--%s=%d" $key (int64 $value) | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%v" $key $value | quote }}
{{- end }}
{{- end }}
{{- end }}
