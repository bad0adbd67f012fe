package scenarios

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"scorefront.dev/controlplane/load"
)

func TestRotatingAKeyBreaksNobodyWhoHasTheOther(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	s.must(s.answers(primary, 200))
	running := s.load(100, secondary)
	s.spread(running, 2)
	s.keys(s.namespaces[0], "the-next-primary-key", secondary)
	s.until(soon, "the old primary is refused", func() error { return s.answers(primary, 401) })
	s.must(s.answers("the-next-primary-key", 200))
	s.unbroken(running)
}

func TestTwoNamespacesThatClaimOneNameDoNotMix(t *testing.T) {
	s := newStage(t, 2)
	first, second := s.namespaces[0], s.namespaces[1]
	s.keys(first, primary, secondary)
	s.serve(first, "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	running := s.load(100, primary)
	// The API server's clock has whole seconds: who is older must be plain.
	s.pass(1100 * time.Millisecond)
	s.keys(second, "a-key-from-elsewhere", "another-key-from-elsewhere")
	s.serve(second, "blue", 2)
	s.serve(second, "green", 2, "traffic-percent", "100")
	s.until(soon, "the second claim is reported", func() error { return s.hasProblem("iris") })
	s.pass(time.Second)
	s.must(s.answers("a-key-from-elsewhere", 401))
	exchanges := s.unbroken(running)
	if greens := share(exchanges, "green"); greens > 0 {
		t.Errorf("%.1f %% were served by the namespace that came later", 100*greens)
	}
	s.deleteService("blue")
	s.until(soon, "the second namespace has the name", func() error { return s.answers("a-key-from-elsewhere", 200) })
	s.must(s.answers(primary, 401))
}

func TestARouterThatIsKilledServesAsSoonAsItIsReadyAgain(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 4)
	s.awaitReplicas(soon, "blue", 4)
	running := s.load(100, primary)
	s.spread(running, 4)
	old := s.router()
	// The last lines of the log die with it: what was answered before is on its way to the file.
	logged := time.Now()
	s.until(soon, "lines are written", func() error { return s.compare(running.Until(logged)) })
	old.Kill()
	killed := time.Now()
	s.must(s.startRouterAt(old.Addresses).AwaitReady())
	ready := time.Now()
	t.Logf("ready %s after it was killed", ready.Sub(killed).Round(time.Millisecond))
	s.spread(running, 4)
	s.pass(500 * time.Millisecond)
	running.Stop()
	after := running.Since(ready)
	s.noneFailed(running.Until(logged))
	s.noneFailed(after)
	s.until(soon, "the access log has what the client counted", func() error { return s.compare(after) })
	// Between the two there was no router, or one that did not know the world yet and said so.
	for _, exchange := range running.Since(logged) {
		if exchange.Sent.Before(ready) && !slices.Contains([]int{0, 200, 503}, exchange.Status) {
			t.Errorf("while no router was ready:\n%s", s.describe([]load.Exchange{exchange}))
		}
	}
}

func TestReplacingTheRouterLosesNothing(t *testing.T) {
	s := newStage(t, 1, "--drain-grace-ms", "2000")
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 4)
	s.awaitReplicas(soon, "blue", 4)
	running := s.load(100, primary)
	s.spread(running, 4)
	old, address := s.router(), s.url()
	next := s.startRouter()
	s.target.Store(&address)
	s.must(next.AwaitReady())
	// What a Service does: it sends requests to the old router until it learns that it is not ready any more.
	s.must(old.Ask())
	s.until(soon, "the old router says that it leaves", func() error {
		if old.IsReady() {
			return errors.New("it is ready")
		}
		return nil
	})
	s.pass(500 * time.Millisecond)
	s.target.Store(&next.URL)
	s.must(old.AwaitDrained())
	s.spread(running, 4)
	s.unbroken(running)
}

func TestARouterThatRestartsWhileTheAPIServerIsAwayServesWhatItLastKnew(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	s := newStage(t, 1, "--state-file", state)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	s.awaitSave()
	s.link.Cut()
	s.router().Kill()
	s.must(s.startRouter("--state-file", state).AwaitReady())
	running := s.load(100, primary)
	s.spread(running, 2)
	s.must(s.answers("not-a-key", 401))
	restored, err := s.router().Metric("scorefront_discovery_restored")
	s.must(err)
	if restored != 1 {
		t.Error("the router does not tell that it serves what it last knew")
	}
	s.link.Mend()
	s.scale("blue", 4)
	s.awaitReplicas(recovered, "blue", 4)
	s.spread(running, 4)
	s.unbroken(running)
}

// tryScale changes the number of replicas if the API server takes it.
func (s *stage) tryScale(deployment string, replicas int) error {
	change := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
	return s.tryPatch(deployment, []byte(change))
}

// awaitSave waits until the router has written its state file with all that it knows now.
func (s *stage) awaitSave() {
	s.Helper()
	const saves = "scorefront_state_file_saves_total"
	before, err := s.router().Metric(saves)
	s.must(err)
	// One more change, so that there will be one more save: the last may have come before this moment.
	s.annotate("blue", "max-queue-length", "999")
	s.until(soon, "the state is saved", func() error {
		after, err := s.router().Metric(saves)
		if err == nil && after <= before {
			err = fmt.Errorf("%s is still %v", saves, after)
		}
		return err
	})
}
