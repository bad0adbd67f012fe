{{/* What the values come to. "true" or nothing stands for a choice, so that `if (include …)` works. */}}

{{/* The extension takes True and False, which are texts for Helm. */}}
{{- define "scorefront.plain" -}}
{{- if eq (toString .Values.allowInsecureConnections | lower) "true" }}true{{ end }}
{{- end }}

{{/* The port to which port 80 sends clients where TLS is all that is served: 443, or that of the nodes. */}}
{{- define "scorefront.redirect" -}}
{{- if and .Values.sslSecret .Values.redirectToHttps (not (include "scorefront.plain" .)) }}
{{- if ne .Values.inferenceRouterServiceType "nodePort" }}443{{ else }}{{ with .Values.service.nodePorts.https }}{{ int . }}{{ end }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether there is a port without TLS, to serve or to redirect. */}}
{{- define "scorefront.listens" -}}
{{- if or (include "scorefront.plain" .) (include "scorefront.redirect" .) }}true{{ end }}
{{- end }}

{{- define "scorefront.replicas" -}}
{{- if not (kindIs "invalid" .Values.replicas) }}{{ int .Values.replicas }}
{{- else if eq (toString .Values.inferenceRouterHA | lower) "true" }}3{{ else }}1{{ end }}
{{- end }}

{{/* The smallest number of pods there may be. */}}
{{- define "scorefront.replicasMin" -}}
{{- $given := .Values.autoscaling.minReplicas }}
{{- if and .Values.autoscaling.enabled (not (kindIs "invalid" $given)) }}{{ int $given }}
{{- else }}{{ include "scorefront.replicas" . }}{{ end }}
{{- end }}

{{- define "scorefront.terminationSeconds" -}}
{{- with .Values.drain }}{{ add .preStopSeconds .graceSeconds .timeoutSeconds 5 }}{{ end }}
{{- end }}

{{/* Refuses an install whose choices are missing or do not go together: all of it at once, with the ways out. */}}
{{- define "scorefront.refuse" -}}
{{- $v := .Values }}
{{- $problems := list }}
{{- if not $v.image.repository }}
{{- $problems = append $problems "image.repository is not set, and there is no published image. Build it from deploy/Containerfile, push it, and set image.repository=registry.example/scorefront" }}
{{- end }}
{{- if not (or $v.sslSecret (include "scorefront.plain" .)) }}
{{- $problems = append $problems (printf "neither sslSecret nor allowInsecureConnections is set. Either serve TLS: make a Secret in namespace %s with cert.pem and key.pem, and set sslSecret to its name. Or serve without TLS, for a test or behind an ingress that ends TLS: set allowInsecureConnections=true" .Release.Namespace) }}
{{- end }}
{{- if not (or $v.modelNamespaces $v.allowReadingAllSecretsOfTheCluster) }}
{{- $problems = append $problems "no modelNamespaces are set. Either name the namespaces with models: modelNamespaces={models}. Or serve models of every namespace, which lets the router's account read every Secret of the cluster: set allowReadingAllSecretsOfTheCluster=true" }}
{{- end }}
{{- if and $v.modelNamespaces $v.allowReadingAllSecretsOfTheCluster }}
{{- $problems = append $problems "both modelNamespaces and allowReadingAllSecretsOfTheCluster are set. Leave one out: the second means every namespace" }}
{{- end }}
{{- if and $v.internalLoadBalancerProvider (ne $v.inferenceRouterServiceType "loadBalancer") }}
{{- $problems = append $problems (printf "internalLoadBalancerProvider is %s, but inferenceRouterServiceType is %s. Set inferenceRouterServiceType=loadBalancer, or leave the provider out" $v.internalLoadBalancerProvider $v.inferenceRouterServiceType) }}
{{- end }}
{{- if $v.autoscaling.enabled }}
{{- if gt (int (include "scorefront.replicasMin" .)) (int $v.autoscaling.maxReplicas) }}
{{- $problems = append $problems (printf "autoscaling.maxReplicas is %d, below the %s replicas to begin with. Raise it, or lower autoscaling.minReplicas" (int $v.autoscaling.maxReplicas) (include "scorefront.replicasMin" .)) }}
{{- end }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n\n  - %s\n" (join "\n  - " $problems)) }}
{{- end }}
{{- end }}
