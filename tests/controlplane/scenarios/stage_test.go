package scenarios

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"scorefront.dev/controlplane/link"
	"scorefront.dev/controlplane/load"
	"scorefront.dev/controlplane/process"
	"scorefront.dev/controlplane/router"
)

const (
	// soon is how long anything may take on a loaded machine that a working cluster does at once.
	soon = 30 * time.Second
	// recovered is how long it may take until everybody has noticed that the API server is back: pauses between
	// attempts grow to half a minute.
	recovered = 2 * time.Minute
)

// stage is one test's part of the world.
type stage struct {
	*testing.T
	ctx context.Context
	// namespaces that the routers watch; the first is where objects go that name no other.
	namespaces []string
	link       *link.Link
	kubeconfig string
	// routers are all that ever ran here, the present one last.
	routers []*router.Router
	target  atomic.Pointer[string]
	// crashes that the test caused.
	crashes []crash
}

var stages atomic.Int64

// newStage makes the namespaces and a router that is ready.
func newStage(t *testing.T, namespaces int, arguments ...string) *stage {
	t.Helper()
	s := prepareStage(t, namespaces)
	s.must(s.startRouter(arguments...).AwaitReady())
	return s
}

// prepareStage makes a stage without a router.
func prepareStage(t *testing.T, namespaces int) *stage {
	t.Helper()
	s := &stage{T: t, ctx: t.Context()}
	number := stages.Add(1)
	for i := range namespaces {
		name := fmt.Sprintf("models-%d-%c", number, 'a'+i)
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := world.Client.CoreV1().Namespaces().Create(s.ctx, object, metav1.CreateOptions{})
		s.must(err)
		s.grant(name)
		s.namespaces = append(s.namespaces, name)
	}
	t.Cleanup(func() {
		for _, name := range s.namespaces {
			s.check(world.Client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}))
		}
	})
	var err error
	s.link, err = link.To(world.APIServer())
	s.must(err)
	t.Cleanup(s.link.Close)
	token, err := accountToken(s.ctx)
	s.must(err)
	s.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	s.must(world.WriteKubeconfig(s.kubeconfig, s.link.Address(), &clientcmdapi.AuthInfo{Token: token}))
	return s
}

// startRouter starts a router beside those that are there; from now on it gets the load.
func (s *stage) startRouter(arguments ...string) *router.Router {
	s.Helper()
	free, err := router.FreeAddresses()
	s.must(err)
	return s.startRouterAt(free, arguments...)
}

func (s *stage) startRouterAt(at router.Addresses, arguments ...string) *router.Router {
	s.Helper()
	arguments = append([]string{"--source", "kubernetes", "--kubeconfig", s.kubeconfig}, arguments...)
	for _, name := range s.namespaces {
		arguments = append(arguments, "--namespace", name)
	}
	running, err := router.Start(routerBinary(), s.TempDir(), at, arguments...)
	s.must(err)
	s.routers = append(s.routers, running)
	s.target.Store(&running.URL)
	s.Cleanup(func() {
		select {
		case <-running.Ended():
		default:
			s.check(running.Finish())
		}
		if s.Failed() {
			s.Logf("the router printed:\n%s", running.Quote())
		}
	})
	return running
}

// router is the present one.
func (s *stage) router() *router.Router { return s.routers[len(s.routers)-1] }

// url is where the load goes.
func (s *stage) url() string { return *s.target.Load() }

// load starts requests for the endpoint iris; headers come in pairs.
func (s *stage) load(rate int, key string, headers ...string) *load.Load {
	plan := s.plan(key, headers...)
	plan.Rate = rate
	return load.Start(plan)
}

// answers says whether one request to iris gets this status.
func (s *stage) answers(key string, status int, headers ...string) error {
	exchange := load.Once(s.plan(key, headers...))
	if exchange.Status != status {
		return fmt.Errorf("%d %v: %s", exchange.Status, exchange.Err, strings.TrimSpace(exchange.Body))
	}
	return nil
}

func (s *stage) plan(key string, headers ...string) load.Plan {
	plan := load.Plan{Target: s.url, Path: scorePath, Key: key, Headers: map[string]string{}}
	for i := 0; i+1 < len(headers); i += 2 {
		plan.Headers[headers[i]] = headers[i+1]
	}
	return plan
}

func (s *stage) must(err error) {
	if err != nil {
		s.Helper()
		s.Fatal(err)
	}
}

func (s *stage) check(err error) {
	if err != nil {
		s.Helper()
		s.Error(err)
	}
}

// until polls until the condition no longer gives an error.
func (s *stage) until(patience time.Duration, what string, condition func() error) {
	s.Helper()
	s.must(process.Until(patience, what, condition))
}

// awaitReplicas waits until the router has so many ready replicas of a deployment of iris.
func (s *stage) awaitReplicas(patience time.Duration, deployment string, count int) {
	s.Helper()
	s.until(patience, fmt.Sprintf("%d replicas of %s", count, deployment), func() error {
		name := fmt.Sprintf("deployment=%q", deployment)
		ready, err := s.router().Metric("scorefront_replicas", name, `state="ready"`)
		if err == nil && int(ready) != count {
			err = fmt.Errorf("%v are ready", ready)
		}
		return err
	})
}

// === The account ===

func createAccount(ctx context.Context) error {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: accountNamespace}}
	if _, err := world.Client.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil {
		return err
	}
	object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
	_, err := world.Client.CoreV1().ServiceAccounts(accountNamespace).Create(ctx, object, metav1.CreateOptions{})
	return err
}

func accountToken(ctx context.Context) (string, error) {
	seconds := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	accounts := world.Client.CoreV1().ServiceAccounts(accountNamespace)
	answer, err := accounts.CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// grant gives the account what docs/kubernetes.md says that it needs in a namespace.
func (s *stage) grant(namespace string) {
	s.Helper()
	verbs := []string{"list", "watch"}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "secrets"}, Verbs: verbs},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: verbs},
		},
	}
	_, err := world.Client.RbacV1().Roles(namespace).Create(s.ctx, role, metav1.CreateOptions{})
	s.must(err)
	s.bind(namespace)
}

func (s *stage) bind(namespace string) {
	s.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: accountNamespace}},
	}
	_, err := world.Client.RbacV1().RoleBindings(namespace).Create(s.ctx, binding, metav1.CreateOptions{})
	s.must(err)
}
