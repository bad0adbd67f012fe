package scenarios

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReplicasThatChangeWhileTheAPIServerIsAwayLoseNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 4)
	s.awaitReplicas(soon, "blue", 4)
	pods, err := s.pods("blue")
	s.must(err)
	running := s.load(100, primary)
	s.spread(running, 4)

	world.KillAPI()
	began := time.Now()
	s.pass(*outage / 4)
	if !s.router().IsReady() {
		t.Error("the router is not ready while the API server is away")
	}
	// Two of four go down, one of them is back with another address: nobody can be told.
	s.crash(pods[0])
	s.crash(pods[1])
	s.pass(*outage / 4)
	s.must(node.Restart(pods[0].UID))
	s.pass(time.Until(began.Add(*outage)))
	s.check(s.ageIsAtLeast(*outage / 2))
	s.must(world.StartAPI())

	back := time.Now()
	s.awaitSlices("blue", 3)
	told := time.Now()
	s.awaitReplicas(recovered, "blue", 3)
	s.spread(running, 3)
	t.Logf("away for %s; the slices were right %s after it was back, the router %s after them",
		*outage, told.Sub(back).Round(time.Millisecond), since(told))
	s.must(node.Restart(pods[1].UID))
	s.awaitReplicas(recovered, "blue", 4)
	s.spread(running, 4)
	s.unbroken(running)
}

func TestEtcdThatRestartsLosesNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	running := s.load(100, primary)
	s.must(world.StopEtcd())
	s.pass(*outage / 4)
	s.must(world.StartEtcd())
	s.until(recovered, "a change is accepted again", func() error { return s.tryScale("blue", 4) })
	s.awaitReplicas(recovered, "blue", 4)
	s.spread(running, 4)
	s.unbroken(running)
}

func TestAWatchThatHasExpiredIsReplacedByAList(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	running := s.load(100, primary)
	s.spread(running, 2)
	listed, err := world.Client.DiscoveryV1().EndpointSlices(s.namespaces[0]).List(s.ctx, metav1.ListOptions{})
	s.must(err)
	// The router is cut off; meanwhile the world goes on, and what it would ask for is forgotten: etcd compacts, and the
	// API server that starts anew has nothing of it in its cache.
	s.link.Cut()
	s.scale("blue", 5)
	s.awaitReady("blue", 5)
	s.must(world.Compact())
	world.KillAPI()
	s.must(world.StartAPI())
	s.must(s.isExpired(listed.ResourceVersion))
	seen, err := s.audited()
	s.must(err)

	s.link.Mend()
	s.awaitReplicas(recovered, "blue", 5)
	s.spread(running, 5)
	s.unbroken(running)
	after, err := s.audited()
	s.must(err)
	if !hasList(after[len(seen):], "endpointslices") {
		t.Errorf("EndpointSlices were not listed anew: %v", after[len(seen):])
	}
}

func TestRightsThatAreTakenAwayAndGivenBackLoseNothing(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 2)
	s.awaitReplicas(soon, "blue", 2)
	running := s.load(100, primary)
	bindings := world.Client.RbacV1().RoleBindings(s.namespaces[0])
	s.must(bindings.Delete(s.ctx, account, metav1.DeleteOptions{}))
	// A watch that has begun is not ended by that: let the next one begin.
	s.until(soon, "the right is gone", s.mayNotList)
	s.link.Shake()
	s.until(soon, "the router is refused", func() error {
		return s.hasProblem("grant the router's ServiceAccount the verbs list and watch on endpointslices")
	})
	s.scale("blue", 4)
	s.awaitReady("blue", 4)
	s.awaitReplicas(soon, "blue", 2)
	if !s.router().IsReady() {
		t.Error("the router is not ready without its rights")
	}
	s.bind(s.namespaces[0])
	s.awaitReplicas(recovered, "blue", 4)
	s.spread(running, 4)
	s.until(recovered, "nothing is wrong", func() error {
		if s.hasProblem("grant the router's ServiceAccount") == nil {
			return errors.New("a right is still missed")
		}
		return nil
	})
	s.unbroken(running)
}

func TestTheRouterAsksForNothingButItsThreeKinds(t *testing.T) {
	s := newStage(t, 1)
	s.keys(s.namespaces[0], primary, secondary)
	s.serve(s.namespaces[0], "blue", 1)
	s.awaitReplicas(soon, "blue", 1)
	s.must(s.router().Finish())
	requests, err := s.audited()
	s.must(err)
	if len(requests) < 6 {
		t.Errorf("three lists and three watches are the least: %v", requests)
	}
	for _, request := range requests {
		isKind := slices.Contains([]string{"services", "secrets", "endpointslices"}, request.Object.Resource)
		isVerb := request.Verb == "list" || request.Verb == "watch"
		if !isKind || !isVerb || request.Answer.Code != http.StatusOK {
			t.Errorf("not one of its rights: %+v", request)
		}
	}
}

// mayNotList says whether the account has lost its right, as the API server sees it.
func (s *stage) mayNotList() error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: accountUser,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: s.namespaces[0], Verb: "watch", Group: "discovery.k8s.io", Resource: "endpointslices",
		},
	}}
	reviews := world.Client.AuthorizationV1().SubjectAccessReviews()
	answer, err := reviews.Create(s.ctx, review, metav1.CreateOptions{})
	if err == nil && answer.Status.Allowed {
		err = errors.New("it is allowed: " + answer.Status.Reason)
	}
	return err
}

// ageIsAtLeast says whether the router tells that what it knows is old.
func (s *stage) ageIsAtLeast(least time.Duration) error {
	age, err := s.router().Metric("scorefront_discovery_age_seconds")
	if err != nil {
		return err
	}
	if age < least.Seconds() {
		return fmt.Errorf("scorefront_discovery_age_seconds is %v, should be at least %v", age, least.Seconds())
	}
	return nil
}

// awaitReady waits until so many pods are ready in the API, whatever the router knows.
func (s *stage) awaitReady(deployment string, count int) {
	s.Helper()
	s.until(soon, fmt.Sprintf("%d pods of %s are ready", count, deployment), func() error {
		pods, err := s.pods(deployment)
		if err != nil {
			return err
		}
		ready := 0
		for _, pod := range pods {
			if slices.ContainsFunc(pod.Status.Conditions, isReady) {
				ready++
			}
		}
		if ready != count {
			return fmt.Errorf("%d are", ready)
		}
		return nil
	})
}

// awaitSlices waits until the slices of a deployment have so many ready addresses in the API.
func (s *stage) awaitSlices(deployment string, count int) {
	s.Helper()
	options := metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=iris-" + deployment}
	s.until(recovered, fmt.Sprintf("%d ready addresses in the slices", count), func() error {
		list, err := world.Client.DiscoveryV1().EndpointSlices(s.namespaces[0]).List(s.ctx, options)
		if err != nil {
			return err
		}
		ready := 0
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready {
					ready++
				}
			}
		}
		if ready != count {
			return fmt.Errorf("there are %d", ready)
		}
		return nil
	})
}

func isReady(condition corev1.PodCondition) bool {
	return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
}
