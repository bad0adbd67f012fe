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

{{/* The largest number of pods there may be. */}}
{{- define "scorefront.replicasMax" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.maxReplicas }}
{{- else }}{{ include "scorefront.replicas" . }}{{ end }}
{{- end }}

{{/* The field `replicas`. Beside an autoscaler that one says it, and whoever applies what `helm template` makes must not
     say it again and again. But a field that is not there means one pod until the autoscaler has looked, and none at all
     switches it off: so what runs is kept, and at least the minimum is there, where helm can see the cluster. It does if
     it finds what every namespace has; a namespace that it is about to make has nothing to lose. */}}
{{- define "scorefront.howMany" -}}
{{- $running := lookup "apps/v1" "Deployment" .Release.Namespace (include "scorefront.name" .) }}
{{- $min := int (include "scorefront.replicasMin" .) }}
{{- if not .Values.autoscaling.enabled -}}
replicas: {{ include "scorefront.replicas" . }}
{{- else if $running -}}
replicas: {{ max $min (int $running.spec.replicas) }}
{{- else if lookup "v1" "ServiceAccount" .Release.Namespace "default" -}}
replicas: {{ $min }}
{{- end }}
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
{{- range $key, $_ := $v.podLabels }}
{{- if hasKey (include "scorefront.labels" $ | fromYaml) $key }}
{{- $problems = append $problems (printf "podLabels.%s is set, but that label is the chart's own: selectors and tools go by it. Leave it out" $key) }}
{{- end }}
{{- end }}
{{- $type := $v.inferenceRouterServiceType }}
{{- if and $v.service.externalTrafficPolicy (eq $type "clusterIP") }}
{{- $problems = append $problems (printf "service.externalTrafficPolicy is %s, but inferenceRouterServiceType is clusterIP, which nobody reaches from outside. Set inferenceRouterServiceType to nodePort or loadBalancer, or leave the policy out" $v.service.externalTrafficPolicy) }}
{{- end }}
{{- if and $v.service.loadBalancerSourceRanges (ne $type "loadBalancer") }}
{{- $problems = append $problems (printf "service.loadBalancerSourceRanges are set, but inferenceRouterServiceType is %s. Set inferenceRouterServiceType=loadBalancer, or leave the ranges out" $type) }}
{{- end }}
{{- if and (or $v.service.nodePorts.http $v.service.nodePorts.https) (eq $type "clusterIP") }}
{{- $problems = append $problems "service.nodePorts are set, but inferenceRouterServiceType is clusterIP, which has none. Set inferenceRouterServiceType to nodePort or loadBalancer, or leave the ports out" }}
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
