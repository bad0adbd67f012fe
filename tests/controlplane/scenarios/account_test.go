package scenarios

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"scorefront.dev/controlplane/load"
	"scorefront.dev/controlplane/process"
	"scorefront.dev/controlplane/router"
)

// finish ends a load and holds the client's account of it against the access logs: every answer is logged once, as
// the client got it.
func (s *stage) finish(running *load.Load) []load.Exchange {
	s.Helper()
	exchanges := running.Stop()
	if len(exchanges) == 0 {
		s.Fatal("the load sent nothing")
	}
	// The log is written behind the answers.
	err := process.Until(soon, "the access log has what the client counted", func() error { return s.compare(exchanges) })
	s.check(err)
	return exchanges
}

func (s *stage) compare(exchanges []load.Exchange) error {
	lines := map[string][]router.Line{}
	for _, running := range s.routers {
		some, err := running.Lines()
		if err != nil {
			return err
		}
		for _, line := range some {
			lines[line.ID] = append(lines[line.ID], line)
		}
	}
	var differences []string
	for _, exchange := range exchanges {
		if exchange.Status == 0 {
			continue
		}
		logged := lines[exchange.ID]
		switch {
		case len(logged) != 1:
			differences = append(differences, fmt.Sprintf("%s: %d lines", exchange.ID, len(logged)))
		case logged[0].Status != exchange.Status || logged[0].Deployment != exchange.Deployment:
			differences = append(differences, fmt.Sprintf("%s: logged %d from %q, got %d from %q",
				exchange.ID, logged[0].Status, logged[0].Deployment, exchange.Status, exchange.Deployment))
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%d of %d differ:\n%s", len(differences), len(exchanges), strings.Join(cut(differences), "\n"))
	}
	return nil
}

// unbroken ends a load of which no request may have failed. What was changed last has some time to do harm.
func (s *stage) unbroken(running *load.Load) []load.Exchange {
	s.Helper()
	s.pass(500 * time.Millisecond)
	exchanges := s.finish(running)
	s.noneFailed(exchanges)
	return exchanges
}

// crash is the end of a replica that nobody was told of.
type crash struct {
	pod          string
	began, ended time.Time
}

// crash ends the replica of a pod under load. It may take the request along that was in its one slot: that one has
// reached a replica, so it is not sent to another.
func (s *stage) crash(pod corev1.Pod) {
	began := time.Now()
	node.Crash(pod.UID)
	s.crashes = append(s.crashes, crash{pod.Name, began, time.Now()})
}

// withoutLost leaves out what crashes may have taken along: one request each, and it was in the slot at that moment.
func (s *stage) withoutLost(failed []load.Exchange) []load.Exchange {
	if len(failed) == 0 {
		return failed
	}
	lines := s.lines()
	for _, crash := range s.crashes {
		lost := slices.IndexFunc(failed, func(e load.Exchange) bool {
			line := lines[e.ID]
			return e.Status == http.StatusBadGateway && line.Outcome == "replica_reset" && line.Replica == crash.pod &&
				e.Sent.Before(crash.ended) && e.Sent.Add(e.Took).After(crash.began)
		})
		if lost >= 0 {
			s.Logf("the crash of %s took along: %s", crash.pod, s.describe(failed[lost:lost+1]))
			failed = slices.Delete(failed, lost, lost+1)
		}
	}
	return failed
}

// noneFailed fails the test with every request that was not served.
func (s *stage) noneFailed(exchanges []load.Exchange) {
	s.Helper()
	failed := slices.DeleteFunc(slices.Clone(exchanges), func(e load.Exchange) bool { return e.Status == 200 })
	failed = s.withoutLost(failed)
	longest := time.Duration(0)
	for _, exchange := range exchanges {
		longest = max(longest, exchange.Took)
	}
	s.Logf("%d requests, %d failed, the longest took %s", len(exchanges), len(failed), longest.Round(time.Millisecond))
	if len(failed) > 0 {
		s.Errorf("%d of %d requests failed:\n%s", len(failed), len(exchanges), s.describe(failed))
	}
}

// describe tells what is known of exchanges, from both sides.
func (s *stage) describe(exchanges []load.Exchange) string {
	lines := s.lines()
	var texts []string
	for _, exchange := range exchanges {
		texts = append(texts, fmt.Sprintf("%s sent %s took %s: %d %v %s; logged: %+v", exchange.ID,
			exchange.Sent.Format("15:04:05.000"), exchange.Took, exchange.Status, exchange.Err, exchange.Body, lines[exchange.ID]))
	}
	return strings.Join(cut(texts), "\n")
}

// lines are what the access logs say of each request.
func (s *stage) lines() map[string]router.Line {
	lines := map[string]router.Line{}
	for _, running := range s.routers {
		some, err := running.Lines()
		s.check(err)
		for _, line := range some {
			lines[line.ID] = line
		}
	}
	return lines
}

func cut(texts []string) []string {
	const most = 20
	if len(texts) > most {
		return append(texts[:most:most], fmt.Sprintf("and %d more", len(texts)-most))
	}
	return texts
}

// share is the part of the exchanges that a deployment served.
func share(exchanges []load.Exchange, deployment string) float64 {
	count := 0
	for _, exchange := range exchanges {
		if exchange.Deployment == deployment {
			count++
		}
	}
	return float64(count) / float64(len(exchanges))
}
