package scenarios

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// request is one that a router made of the API server, as the API server's own log has it.
type request struct {
	Verb   string `json:"verb"`
	URI    string `json:"requestURI"`
	Object struct {
		Resource  string `json:"resource"`
		Namespace string `json:"namespace"`
	} `json:"objectRef"`
	Answer struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// audited gives all requests for the namespaces of this stage, and those for no namespace.
func (s *stage) audited() ([]request, error) {
	file, err := os.Open(world.AuditLog())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var requests []request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one request
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%s: %w", world.AuditLog(), err)
		}
		if one.Object.Namespace == "" || slices.Contains(s.namespaces, one.Object.Namespace) {
			requests = append(requests, one)
		}
	}
	return requests, lines.Err()
}

func hasList(requests []request, resource string) bool {
	return slices.ContainsFunc(requests, func(one request) bool {
		return one.Verb == "list" && one.Object.Resource == resource && one.Answer.Code == 200
	})
}

// isExpired says whether a watch from this version on is refused because it has expired.
func (s *stage) isExpired(version string) error {
	known := world.Client.DiscoveryV1().EndpointSlices(s.namespaces[0])
	events, err := known.Watch(s.ctx, metav1.ListOptions{ResourceVersion: version})
	if errors.IsResourceExpired(err) || errors.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Stop()
	event := <-events.ResultChan()
	if event.Type != watch.Error {
		return fmt.Errorf("a watch from %s on gives %v: the test shows nothing", version, event)
	}
	if status := errors.FromObject(event.Object); !errors.IsResourceExpired(status) && !errors.IsGone(status) {
		return fmt.Errorf("a watch from %s on: %w", version, status)
	}
	return nil
}

// hasProblem says whether the router tells of a problem with this text.
func (s *stage) hasProblem(text string) error {
	snapshot, err := s.router().Snapshot()
	if err != nil {
		return err
	}
	var world struct {
		Problems []struct{ Object, Message string }
	}
	if err := json.Unmarshal([]byte(snapshot), &world); err != nil {
		return err
	}
	for _, problem := range world.Problems {
		if strings.Contains(problem.Message, text) {
			return nil
		}
	}
	return fmt.Errorf("no problem says %q: %+v", text, world.Problems)
}
