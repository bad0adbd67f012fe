// Package kubelet plays the nodes of a cluster: it runs the pods that the real controllers make.
//
// Each pod gets an address of its own and a Replica there. What happens to a pod is what a kubelet makes of it: it is
// not ready at once; when it is to be deleted it stops being ready, goes on serving for its grace, then finishes what
// runs, closes its socket, and is deleted.
//
// The kubelet lists pods again and again and compares: an API server that is away holds it up, and nothing else.
package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	node  = "node-1"
	pause = 50 * time.Millisecond
	// startup is how long a pod runs before it is ready.
	startup = 200 * time.Millisecond
)

// Kubelet is the one node.
type Kubelet struct {
	client kubernetes.Interface
	pace   time.Duration

	// failed says what must not happen: a pod that cannot be run.
	failed func(error)

	mutex     sync.Mutex
	pods      map[types.UID]*pod
	addresses int
}

// pod is what runs for one pod.
type pod struct {
	name, namespace, address string
	replica                  *Replica
	began                    time.Time
	// reported is what the API server knows of it.
	reported struct {
		ready   bool
		address string
	}
}

// New makes a node whose replicas take so long for a request.
func New(ctx context.Context, client kubernetes.Interface, pace time.Duration, failed func(error)) (*Kubelet, error) {
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{"kubernetes.io/hostname": node}}}
	_, err := client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	return &Kubelet{client: client, pace: pace, failed: failed, pods: map[types.UID]*pod{}}, nil
}

// Run works until it is told to stop, then ends every replica.
func (k *Kubelet) Run(ctx context.Context) {
	for ctx.Err() == nil {
		// A failure here is an API server that is away, or a pod that somebody else changed: the next round sees.
		if list, err := k.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err == nil {
			k.compare(ctx, list.Items)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, running := range k.pods {
		running.stop()
	}
}

// Crash ends the replica of a pod at once, as a node that goes down does. Nobody is told before Restart.
func (k *Kubelet) Crash(uid types.UID) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if running := k.pods[uid]; running != nil {
		running.stop()
	}
}

// Restart runs a crashed pod again: the same pod, with a new address, as a node gives when it is back.
func (k *Kubelet) Restart(uid types.UID) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	running := k.pods[uid]
	if running == nil {
		return fmt.Errorf("no pod with the uid %s runs here", uid)
	}
	return k.start(running)
}

func (k *Kubelet) compare(ctx context.Context, list []corev1.Pod) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	seen := map[types.UID]bool{}
	for i := range list {
		object := &list[i]
		seen[object.UID] = true
		if err := k.tend(ctx, object); err != nil && ctx.Err() == nil && !isTransient(err) {
			k.failed(fmt.Errorf("pod %s/%s: %w", object.Namespace, object.Name, err))
		}
	}
	for uid, running := range k.pods {
		if !seen[uid] {
			running.stop()
			delete(k.pods, uid)
		}
	}
}

// tend brings one pod a step further.
func (k *Kubelet) tend(ctx context.Context, object *corev1.Pod) error {
	running := k.pods[object.UID]
	switch {
	case object.DeletionTimestamp != nil:
		return k.end(ctx, object, running)
	case running == nil:
		running = &pod{name: object.Name, namespace: object.Namespace}
		if err := k.start(running); err != nil {
			return err
		}
		k.pods[object.UID] = running
		if object.Spec.NodeName == "" {
			return k.bind(ctx, object)
		}
		return nil
	default:
		isReady := running.replica != nil && time.Since(running.began) >= startup
		return k.report(ctx, running, isReady)
	}
}

func (k *Kubelet) start(running *pod) error {
	k.addresses++
	// From 10.244.1.1 on, and never one that was used before.
	running.address = fmt.Sprintf("10.244.%d.%d", 1+k.addresses/250, 1+k.addresses%250)
	replica, err := Listen(running.name, running.address, k.pace)
	if err != nil {
		return err
	}
	running.replica, running.began = replica, time.Now()
	return nil
}

func (k *Kubelet) bind(ctx context.Context, object *corev1.Pod) error {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, Namespace: object.Namespace, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	return k.client.CoreV1().Pods(object.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
}

// end sees a pod to its end: the timestamp of its deletion is when its grace is over.
func (k *Kubelet) end(ctx context.Context, object *corev1.Pod, running *pod) error {
	if running != nil && time.Now().Before(object.DeletionTimestamp.Time) {
		return k.report(ctx, running, false)
	}
	if running != nil {
		running.stop()
	}
	now := int64(0)
	uid := object.UID
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}}
	return k.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, options)
}

// report tells the API server how a pod is, if it does not know.
func (k *Kubelet) report(ctx context.Context, running *pod, isReady bool) error {
	if running.reported.ready == isReady && running.reported.address == running.address {
		return nil
	}
	ready := corev1.ConditionFalse
	if isReady {
		ready = corev1.ConditionTrue
	}
	now := metav1.Now()
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now}
	}
	patch, err := json.Marshal(map[string]any{"status": corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: "10.244.0.1", PodIP: running.address,
		PodIPs: []corev1.PodIP{{IP: running.address}},
		Conditions: []corev1.PodCondition{
			condition(corev1.PodScheduled, corev1.ConditionTrue), condition(corev1.PodInitialized, corev1.ConditionTrue),
			condition(corev1.ContainersReady, ready), condition(corev1.PodReady, ready),
		},
	}})
	if err != nil {
		return err
	}
	pods := k.client.CoreV1().Pods(running.namespace)
	if _, err := pods.Patch(ctx, running.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	running.reported.ready, running.reported.address = isReady, running.address
	return nil
}

func (p *pod) stop() {
	if p.replica != nil {
		p.replica.Close()
		p.replica = nil
	}
}

// isTransient says whether the next round may do better: the API server is away or starting, or was overtaken.
func isTransient(err error) bool {
	var connection net.Error
	if errors.As(err, &connection) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) ||
		apierrors.IsTooManyRequests(err) || status.Status().Code >= 500
}
