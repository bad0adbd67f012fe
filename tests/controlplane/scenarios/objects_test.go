package scenarios

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"scorefront.dev/controlplane/kubelet"
)

const (
	endpointLabel   = "ml.azure.com/endpoint-name"
	deploymentLabel = "ml.azure.com/deployment-name"
	prefix          = "scorefront.dev/"
	scorePath       = "/api/v1/endpoint/iris/score"

	primary, secondary = "the-primary-key", "the-secondary-key"

	// graceSeconds is how long a pod that is to be deleted goes on. The API server cuts the moment of its end to
	// whole seconds, so it may be one less.
	graceSeconds = 3
)

// keys makes or changes the Secret of iris in a namespace.
func (s *stage) keys(namespace, primary, secondary string) {
	s.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "iris-keys", Labels: map[string]string{endpointLabel: "iris"}},
		StringData: map[string]string{"primaryKey": primary, "secondaryKey": secondary},
	}
	secrets := world.Client.CoreV1().Secrets(namespace)
	if _, err := secrets.Get(s.ctx, secret.Name, metav1.GetOptions{}); err == nil {
		_, err = secrets.Update(s.ctx, secret, metav1.UpdateOptions{})
		s.must(err)
		return
	}
	_, err := secrets.Create(s.ctx, secret, metav1.CreateOptions{})
	s.must(err)
}

// serve makes the Service and the Deployment of a deployment of iris; annotations come in pairs, without the prefix.
func (s *stage) serve(namespace, deployment string, replicas int, annotations ...string) {
	s.Helper()
	name := "iris-" + deployment
	selector := map[string]string{"app": name}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{endpointLabel: "iris", deploymentLabel: deployment},
			Annotations: map[string]string{
				// Longer than the defaults: what is tested is that no request is lost, not how fast this machine is.
				prefix + "max-queue-wait-ms": "10000", prefix + "request-timeout-ms": "20000",
			},
		},
		Spec: corev1.ServiceSpec{
			Selector: selector,
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
	for i := 0; i+1 < len(annotations); i += 2 {
		service.Annotations[prefix+annotations[i]] = annotations[i+1]
	}
	_, err := world.Client.CoreV1().Services(namespace).Create(s.ctx, service, metav1.CreateOptions{})
	s.must(err)
	s.run(namespace, name, replicas, selector)
}

// run makes the Deployment behind a Service.
func (s *stage) run(namespace, name string, replicas int, labels map[string]string) {
	s.Helper()
	count, grace := int32(replicas), int64(graceSeconds)
	surge, unavailable := intstr.FromInt32(2), intstr.FromInt32(0)
	object := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &count,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxSurge: &surge, MaxUnavailable: &unavailable,
				},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					Containers: []corev1.Container{{
						Name: "model", Image: "model",
						Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: kubelet.Port}},
					}},
				},
			},
		},
	}
	_, err := world.Client.AppsV1().Deployments(namespace).Create(s.ctx, object, metav1.CreateOptions{})
	s.must(err)
}

// scale changes the number of replicas of a deployment of iris in the first namespace.
func (s *stage) scale(deployment string, replicas int) {
	s.Helper()
	s.patchDeployment(deployment, map[string]any{"spec": map[string]any{"replicas": replicas}})
}

// roll replaces every replica.
func (s *stage) roll(deployment, revision string) {
	s.Helper()
	annotations := map[string]any{"annotations": map[string]any{"revision": revision}}
	template := map[string]any{"template": map[string]any{"metadata": annotations}}
	s.patchDeployment(deployment, map[string]any{"spec": template})
}

func (s *stage) patchDeployment(deployment string, change map[string]any) {
	s.Helper()
	text, err := json.Marshal(change)
	s.must(err)
	s.must(s.tryPatch(deployment, text))
}

func (s *stage) tryPatch(deployment string, change []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, soon)
	defer cancel()
	deployments := world.Client.AppsV1().Deployments(s.namespaces[0])
	_, err := deployments.Patch(ctx, "iris-"+deployment, types.MergePatchType, change, metav1.PatchOptions{})
	return err
}

// annotate sets one annotation of the Service of a deployment.
func (s *stage) annotate(deployment, name, value string) {
	s.Helper()
	s.patchService(deployment, "annotations", prefix+name, value)
}

// label sets one label of the Service of a deployment.
func (s *stage) label(deployment, name, value string) {
	s.Helper()
	s.patchService(deployment, "labels", name, value)
}

func (s *stage) patchService(deployment, field, name, value string) {
	s.Helper()
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{field: map[string]string{name: value}}})
	s.must(err)
	services := world.Client.CoreV1().Services(s.namespaces[0])
	_, err = services.Patch(s.ctx, "iris-"+deployment, types.MergePatchType, text, metav1.PatchOptions{})
	s.must(err)
}

// pods are the pods of a deployment.
func (s *stage) pods(deployment string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(s.ctx, soon)
	defer cancel()
	options := metav1.ListOptions{LabelSelector: "app=iris-" + deployment}
	list, err := world.Client.CoreV1().Pods(s.namespaces[0]).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("pods of %s: %w", deployment, err)
	}
	return list.Items, nil
}

func (s *stage) deleteService(deployment string) {
	s.Helper()
	services := world.Client.CoreV1().Services(s.namespaces[0])
	s.must(services.Delete(s.ctx, "iris-"+deployment, metav1.DeleteOptions{}))
}

func (s *stage) deleteDeployment(deployment string) {
	s.Helper()
	deployments := world.Client.AppsV1().Deployments(s.namespaces[0])
	s.must(deployments.Delete(s.ctx, "iris-"+deployment, metav1.DeleteOptions{}))
}
