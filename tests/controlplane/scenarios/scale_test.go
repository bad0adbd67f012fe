package scenarios

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"scorefront.dev/controlplane/kubelet"
	"scorefront.dev/controlplane/load"
)

// size is a world whose Services and EndpointSlices are written by the test: nobody else makes so many at once.
type size struct {
	endpoints, deployments, replicas int
	// changes is how often the time from a change to its first request is measured.
	changes int
}

func TestScale(t *testing.T) {
	t.Run("60 endpoints, 100 deployments", func(t *testing.T) { measure(t, size{60, 100, 3, 100}) })
	t.Run("1200 endpoints, 2000 deployments, 20000 replicas", func(t *testing.T) {
		if *scale != "full" {
			t.Skip("only with -scale full")
		}
		measure(t, size{1200, 2000, 10, 400})
	})
}

func measure(t *testing.T, size size) {
	s := prepareStage(t, 1)
	began := time.Now()
	s.populate(size)
	t.Logf("%d deployments with %d replicas each are in the API after %s", size.deployments, size.replicas, since(began))
	began = time.Now()
	running := s.startRouter()
	s.must(running.AwaitReady())
	ready := time.Since(began)
	count, err := running.Metric("scorefront_replicas", `state="ready"`)
	s.must(err)
	if int(count) != size.deployments*size.replicas {
		t.Errorf("%v replicas are ready", count)
	}
	memory, err := running.Metric("process_resident_memory_bytes")
	s.must(err)
	s.sample(size)
	delays := s.change(size)
	after, err := running.Metric("process_resident_memory_bytes")
	s.must(err)
	t.Logf("ready after %s; resident memory %.0f MiB, %.0f MiB after %d changes", ready.Round(time.Millisecond),
		memory/(1<<20), after/(1<<20), len(delays))
	t.Logf("from a change of a slice to the first request by it: p50 %s, p99 %s, longest %s",
		part(delays, 50), part(delays, 99), part(delays, 100))
	if longest := part(delays, 100); longest > soon {
		t.Errorf("a change took %s", longest)
	}
}

// populate writes all objects, many at a time.
func (s *stage) populate(size size) {
	s.Helper()
	jobs := make(chan int)
	failures := make(chan error, 2*size.deployments)
	var writers sync.WaitGroup
	for range 32 {
		writers.Go(func() {
			for number := range jobs {
				if err := s.populateOne(size, number); err != nil {
					failures <- err
				}
			}
		})
	}
	for number := range size.deployments {
		jobs <- number
	}
	close(jobs)
	writers.Wait()
	close(failures)
	for err := range failures {
		s.Fatal(err)
	}
}

func (s *stage) populateOne(size size, number int) error {
	endpoint, deployment := size.names(number)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:        endpoint + "-" + deployment,
			Labels:      map[string]string{endpointLabel: endpoint, deploymentLabel: deployment},
			Annotations: map[string]string{prefix + "traffic-percent": size.percent(number)},
		},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Name: "http", Port: kubelet.Port}}},
	}
	space := s.namespaces[0]
	if _, err := world.Client.CoreV1().Services(space).Create(s.ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	var addresses []string
	for replica := range size.replicas {
		addresses = append(addresses, size.address(number*size.replicas+replica))
	}
	list := world.Client.DiscoveryV1().EndpointSlices(space)
	if _, err := list.Create(s.ctx, slice(service.Name, addresses...), metav1.CreateOptions{}); err != nil {
		return err
	}
	if number >= size.endpoints {
		return nil
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: endpoint, Labels: map[string]string{endpointLabel: endpoint}},
		StringData: map[string]string{"primaryKey": primary, "secondaryKey": secondary},
	}
	_, err := world.Client.CoreV1().Secrets(space).Create(s.ctx, secret, metav1.CreateOptions{})
	return err
}

// names of a deployment by its number: each endpoint has one, then the first ones have a second.
func (z size) names(number int) (endpoint, deployment string) {
	if number < z.endpoints {
		return fmt.Sprintf("model%d", number), "blue"
	}
	return fmt.Sprintf("model%d", number-z.endpoints), "green"
}

func (z size) percent(number int) string {
	switch {
	case number >= z.endpoints:
		return "10"
	case number < z.deployments-z.endpoints:
		return "90"
	default:
		return "100"
	}
}

// address of a replica by its number; those of the kubelet are lower.
func (z size) address(number int) string {
	return fmt.Sprintf("10.244.%d.%d", 64+number/250, 1+number%250)
}

func slice(service string, addresses ...string) *discoveryv1.EndpointSlice {
	port, name := int32(kubelet.Port), "http"
	object := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for _, address := range addresses {
		pod := corev1.ObjectReference{Kind: "Pod", Name: "pod-" + address, UID: types.UID("uid-" + address)}
		object.Endpoints = append(object.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}, TargetRef: &pod})
	}
	return object
}

// sample scores on some endpoints, spread over all.
func (s *stage) sample(size size) {
	s.Helper()
	const samples = 20
	for i := range samples {
		number := i * size.endpoints / samples
		endpoint, deployment := size.names(number)
		var running []*kubelet.Replica
		for replica := range size.replicas {
			address := size.address(number*size.replicas + replica)
			one, err := kubelet.Listen(address, address, 0)
			s.must(err)
			running = append(running, one)
		}
		plan := s.plan(primary, "azureml-model-deployment", deployment)
		plan.Path = "/api/v1/endpoint/" + endpoint + "/score"
		if exchange := load.Once(plan); exchange.Status != 200 {
			s.Errorf("%s: %d %v %s", endpoint, exchange.Status, exchange.Err, exchange.Body)
		}
		for _, one := range running {
			one.Close()
		}
	}
}

// change moves the last endpoint from one address to the next, again and again under requests, and gives the time from
// the write of each slice to the first request at the new address.
func (s *stage) change(size size) []time.Duration {
	s.Helper()
	number := size.endpoints - 1
	endpoint, deployment := size.names(number)
	at := func(step int) string { return size.address(size.deployments*size.replicas + step) }
	list := world.Client.DiscoveryV1().EndpointSlices(s.namespaces[0])
	move := func(step int) {
		s.Helper()
		_, err := list.Update(s.ctx, slice(endpoint+"-"+deployment, at(step)), metav1.UpdateOptions{})
		s.must(err)
	}
	old, err := kubelet.Listen(at(0), at(0), 0)
	s.must(err)
	move(0)
	s.until(soon, "the first move", func() error { return s.scored(endpoint) })
	stop := s.hammer(endpoint)
	var delays []time.Duration
	for step := 1; step <= size.changes; step++ {
		next, err := kubelet.Listen(at(step), at(step), 0)
		s.must(err)
		began := time.Now()
		move(step)
		s.until(soon, "a request at the new address", func() error {
			if next.First.Load() == 0 {
				return fmt.Errorf("none yet for change %d", step)
			}
			return nil
		})
		delays = append(delays, time.Unix(0, next.First.Load()).Sub(began))
		old.Close()
		old = next
	}
	sent, failed := stop()
	old.Close()
	s.Logf("%d requests meanwhile, %d failed", sent, failed)
	if failed > 0 {
		s.Errorf("%d of %d requests failed", failed, sent)
	}
	return delays
}

func (s *stage) scored(endpoint string) error {
	plan := s.plan(primary)
	plan.Path = "/api/v1/endpoint/" + endpoint + "/score"
	if exchange := load.Once(plan); exchange.Status != 200 {
		return fmt.Errorf("%d %v %s", exchange.Status, exchange.Err, exchange.Body)
	}
	return nil
}

// hammer sends one request after the other until it is told to stop; the next one is never more than some hundred
// microseconds away.
func (s *stage) hammer(endpoint string) (stop func() (sent, failed int64)) {
	var sent, failed atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	client := load.NewClient()
	var senders sync.WaitGroup
	senders.Go(func() {
		for ctx.Err() == nil {
			request, err := load.NewRequest(context.Background(), s.url()+"/api/v1/endpoint/"+endpoint+"/score", primary)
			if err == nil {
				err = scoreOnce(client, request)
			}
			sent.Add(1)
			if err != nil {
				failed.Add(1)
				s.Log(err)
			}
		}
	})
	return func() (int64, int64) {
		cancel()
		senders.Wait()
		client.CloseIdleConnections()
		return sent.Load(), failed.Load()
	}
}

func scoreOnce(client *http.Client, request *http.Request) error {
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return err
}

// part is the smallest duration that so many percent are not above.
func part(durations []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)].Round(100 * time.Microsecond)
}

func since(moment time.Time) time.Duration { return time.Since(moment).Round(10 * time.Millisecond) }
