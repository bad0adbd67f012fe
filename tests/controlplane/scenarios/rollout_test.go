package scenarios

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"scorefront.dev/controlplane/kubelet"
	"scorefront.dev/controlplane/load"
)

func TestFirstDeploymentIsServedFromItsFirstAnswerOn(t *testing.T) {
	s := newStage(t, 1)
	running := s.load(100, primary)
	s.keys(s.namespaces[0], primary, secondary)
	began := time.Now()
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	s.until(soon, "a first answer", func() error { return s.served(running, began) })
	s.pass(500 * time.Millisecond)
	exchanges := s.finish(running)
	slices.SortFunc(exchanges, func(a, b load.Exchange) int { return a.Sent.Compare(b.Sent) })
	first := slices.IndexFunc(exchanges, func(e load.Exchange) bool { return e.Status == 200 })
	for _, early := range exchanges[:first] {
		// There is no endpoint yet, or no key.
		if early.Status != 404 && early.Status != 401 {
			t.Errorf("before the first answer:\n%s", s.describe([]load.Exchange{early}))
		}
	}
	answered := exchanges[first].Sent.Add(exchanges[first].Took)
	t.Logf("the first answer came %s after the objects were made", answered.Sub(began).Round(time.Millisecond))
	// From the moment that the endpoint was known on.
	s.noneFailed(exchanges[first:])
}

func TestScalingUpAndDownLosesNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 1)
	s.awaitReplicas(soon, "blue", 1)
	running := s.load(100, primary)
	for _, replicas := range []int{10, 2} {
		s.scale("blue", replicas)
		s.awaitReplicas(soon, "blue", replicas)
		s.spread(running, replicas)
		s.awaitPods("blue", replicas)
	}
	s.unbroken(running)
}

func TestRollingUpdateOfAllReplicasLosesNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 6)
	s.awaitReplicas(soon, "blue", 6)
	before, err := s.pods("blue")
	s.must(err)
	running := s.load(100, primary)
	// Some that run for most of the grace: they are finished by replicas that are on their way out.
	slow := s.load(1, primary, kubelet.PaceHeader, "1500")
	s.spread(running, 6)
	s.roll("blue", "2")
	s.awaitOthers("blue", before)
	s.awaitReplicas(soon, "blue", 6)
	s.spread(running, 6)
	exchanges := s.unbroken(running)
	s.unbroken(slow)
	for _, pod := range before {
		if !slices.ContainsFunc(exchanges, func(e load.Exchange) bool { return e.Body == pod.Name }) {
			t.Errorf("%s served nothing before it was replaced: the test shows nothing", pod.Name)
		}
	}
}

func TestRollingUpdateOfTheOnlyReplicaLosesNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 1)
	s.awaitReplicas(soon, "blue", 1)
	before, err := s.pods("blue")
	s.must(err)
	running := s.load(50, primary)
	s.spread(running, 1)
	s.roll("blue", "2")
	s.awaitOthers("blue", before)
	s.spread(running, 1)
	s.unbroken(running)
}

func TestShiftFromBlueToGreenLosesNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2, "traffic-percent", "100")
	s.serve(s.namespaces[0], "green", 2, "traffic-percent", "0")
	s.awaitReplicas(soon, "blue", 2)
	s.awaitReplicas(soon, "green", 2)
	running := s.load(150, primary)
	for _, green := range []int{0, 10, 50, 90, 100} {
		// One after the other, as kubectl does it: for a moment they do not sum up to 100.
		s.annotate("green", "traffic-percent", fmt.Sprint(green))
		s.annotate("blue", "traffic-percent", fmt.Sprint(100-green))
		s.awaitShares(map[string]int{"green": green, "blue": 100 - green})
		began := time.Now()
		s.pass(1500 * time.Millisecond)
		step := running.Since(began)
		measured := 100 * share(step, "green")
		t.Logf("green should have %d %%, has %.1f %% of %d", green, measured, len(step))
		// Of 225 requests at 50 %, one in ten thousand times it is 13 off.
		if tolerance := 13.0; measured < float64(green)-tolerance || measured > float64(green)+tolerance {
			t.Errorf("green should have %d %%, has %.1f %%", green, measured)
		}
		if (green == 0 || green == 100) && measured != float64(green) {
			t.Errorf("green should have %d %% exactly, has %.1f %%", green, measured)
		}
	}
	s.unbroken(running)
}

func TestDeletingADeploymentHarmsNoOther(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2, "traffic-percent", "100")
	s.serve(s.namespaces[0], "green", 2, "traffic-percent", "0", "max-queue-wait-ms", "500")
	s.awaitReplicas(soon, "blue", 2)
	s.awaitReplicas(soon, "green", 2)
	blue := s.load(100, primary)
	toGreen := []string{"azureml-model-deployment", "green"}
	green := s.load(50, primary, toGreen...)
	s.spread(green, 2)
	s.deleteDeployment("green")
	s.awaitPods("green", 0)
	s.until(soon, "green has no replica", func() error { return s.answers(primary, 503, toGreen...) })
	s.deleteService("green")
	s.until(soon, "green is unknown", func() error { return s.answers(primary, 404, toGreen...) })
	s.unbroken(blue)
	// Those that name it are served, or told that no replica is ready, or no deployment there: nothing is cut off.
	for _, exchange := range s.finish(green) {
		if !slices.Contains([]int{200, 503, 404}, exchange.Status) {
			t.Errorf("to the deleted deployment:\n%s", s.describe([]load.Exchange{exchange}))
		}
	}
	s.deleteDeployment("blue")
	s.deleteService("blue")
	s.until(soon, "iris is unknown", func() error { return s.answers(primary, 404) })
}

func TestRelabellingAServiceMovesItsReplicas(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	running := s.load(100, primary)
	s.spread(running, 2)
	s.label("blue", deploymentLabel, "teal")
	s.awaitReplicas(soon, "teal", 2)
	s.spread(running, 2)
	s.unbroken(running)
	s.must(s.answers(primary, 404, "azureml-model-deployment", "blue"))
	s.must(s.answers(primary, 200, "azureml-model-deployment", "teal"))
	s.label("blue", endpointLabel, "rose")
	s.until(soon, "iris is unknown", func() error { return s.answers(primary, 404) })
}

// === Waiting ===

// pass lets time pass in which requests are served: how much is part of what is tested.
func (s *stage) pass(duration time.Duration) { time.Sleep(duration) }

// served says whether a request that was sent after a moment has been served.
func (s *stage) served(running *load.Load, after time.Time) error {
	exchanges := running.Since(after)
	if slices.ContainsFunc(exchanges, func(e load.Exchange) bool { return e.Status == 200 }) {
		return nil
	}
	if len(exchanges) == 0 {
		return errors.New("nothing has come back")
	}
	last := exchanges[len(exchanges)-1]
	return fmt.Errorf("none of %d, the last: %d %v %s", len(exchanges), last.Status, last.Err, last.Body)
}

// spread waits until so many replicas have answered from now on.
func (s *stage) spread(running *load.Load, replicas int) {
	s.Helper()
	now := time.Now()
	s.until(soon, fmt.Sprintf("%d replicas answer", replicas), func() error {
		names := map[string]bool{}
		for _, exchange := range running.Since(now) {
			if exchange.Status == 200 {
				names[exchange.Body] = true
			}
		}
		if len(names) < replicas {
			return fmt.Errorf("%d do", len(names))
		}
		return nil
	})
}

// awaitOthers waits until none of these pods of a deployment is left.
func (s *stage) awaitOthers(deployment string, before []corev1.Pod) {
	s.Helper()
	s.until(2*soon, "every pod is a new one", func() error {
		after, err := s.pods(deployment)
		if err != nil {
			return err
		}
		for _, pod := range after {
			if slices.ContainsFunc(before, func(old corev1.Pod) bool { return old.UID == pod.UID }) {
				return fmt.Errorf("%s is still there", pod.Name)
			}
		}
		return nil
	})
}

// awaitPods waits until a deployment has so many pods, those on their way out included.
func (s *stage) awaitPods(deployment string, count int) {
	s.Helper()
	s.until(soon, fmt.Sprintf("%d pods of %s", count, deployment), func() error {
		pods, err := s.pods(deployment)
		if err == nil && len(pods) != count {
			err = fmt.Errorf("there are %d", len(pods))
		}
		return err
	})
}

// awaitShares waits until the router has these percentages.
func (s *stage) awaitShares(percent map[string]int) {
	s.Helper()
	s.until(soon, fmt.Sprint("shares are ", percent), func() error {
		shares, err := s.router().Shares("iris")
		if err != nil {
			return err
		}
		for name, wanted := range percent {
			if shares[name] != wanted {
				return fmt.Errorf("they are %v", shares)
			}
		}
		return nil
	})
}
