// Package plane runs a real Kubernetes control plane: etcd, kube-apiserver, and those controllers of
// kube-controller-manager that turn Deployments into EndpointSlices and clean up behind them.
//
// There are no nodes: package kubelet plays them. Everything listens on loopback and keeps its data in one folder.
package plane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"scorefront.dev/controlplane/process"
)

// patience is how long one part may take to start, or to stop. A loaded machine is slow, not broken.
const patience = 2 * time.Minute

// controllers are all that run.
var controllers = []string{
	"deployment-controller", "replicaset-controller", "endpointslice-controller",
	"garbage-collector-controller", "namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller",
}

// Config says what control plane.
type Config struct {
	// Version of Kubernetes, such as v1.37.2.
	Version string
	// Folder for everything that it writes.
	Folder string
	// PodSecurity is the level that namespaces enforce which do not say another one.
	PodSecurity string
	// Audited is the user whose requests are written to AuditLog.
	Audited string
}

// Plane is a running control plane.
type Plane struct {
	// Admin may do everything, at any rate.
	Admin  *rest.Config
	Client *kubernetes.Clientset
	// Kubeconfig is a file for Admin.
	Kubeconfig string

	config    Config
	binaries  map[string]string
	authority *authority
	ports     struct{ etcd, peer, api int }

	etcd, api, manager *process.Process
}

// Start builds what is missing and comes back when every part is at work.
func Start(config Config) (*Plane, error) {
	p := &Plane{config: config}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	start := func() error {
		if err := p.StartEtcd(); err != nil {
			return err
		}
		return p.StartAPI()
	}
	if err := start(); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Stop ends every part, in the order in which they lean on each other.
func (p *Plane) Stop() error {
	var failures []error
	for _, part := range []*process.Process{p.manager, p.api, p.etcd} {
		if part == nil {
			continue
		}
		select {
		case <-part.Ended():
		default:
			failures = append(failures, part.Stop(patience))
		}
	}
	return errors.Join(failures...)
}

// StartEtcd starts etcd on the data that is there.
func (p *Plane) StartEtcd() (err error) {
	client, peer := p.etcdURL(), fmt.Sprintf("http://127.0.0.1:%d", p.ports.peer)
	p.etcd, err = process.Start(p.config.Folder, "etcd", p.binaries["etcd"],
		"--name=test", "--data-dir="+p.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=test="+peer)
	if err != nil {
		return err
	}
	return p.await(p.etcd, func(ctx context.Context) error {
		return p.withEtcd(func(client *clientv3.Client) error {
			_, err := client.Get(ctx, "/")
			return err
		})
	})
}

// StopEtcd ends etcd.
func (p *Plane) StopEtcd() error { return p.etcd.Stop(patience) }

// Compact makes etcd forget every version but the present one.
func (p *Plane) Compact() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.withEtcd(func(client *clientv3.Client) error {
		now, err := client.Get(ctx, "/")
		if err != nil {
			return err
		}
		_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
		return err
	})
}

// StartAPI starts the API server, and the controllers anew if they had known another one: in a cluster they lose their
// lease with it and end.
func (p *Plane) StartAPI() error {
	if err := p.startAPI(); err != nil {
		return err
	}
	if p.manager != nil {
		p.manager.Kill()
	}
	return p.startManager()
}

func (p *Plane) startAPI() (err error) {
	arguments := []string{
		"--etcd-servers=" + p.etcdURL(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", p.ports.api),
		// There is nothing to be reached at the address of the Service `kubernetes`.
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file=" + p.path("ca.crt"),
		"--tls-cert-file=" + p.path("api.crt"), "--tls-private-key-file=" + p.path("api.key"),
		"--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.path("accounts.key"), "--service-account-signing-key-file=" + p.path("accounts.key"),
		"--admission-control-config-file=" + p.path("admission.yaml"),
		"--audit-policy-file=" + p.path("audit.yaml"), "--audit-log-path=" + p.AuditLog(), "--audit-log-mode=blocking",
		"--profiling=false",
	}
	p.api, err = process.Start(p.config.Folder, "kube-apiserver", p.binaries["kube-apiserver"], arguments...)
	if err != nil {
		return err
	}
	return p.await(p.api, func(ctx context.Context) error {
		return p.Client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// KillAPI ends the API server at once; whoever is connected is cut off.
func (p *Plane) KillAPI() { p.api.Kill() }

// APIServer is the host and port of the API server.
func (p *Plane) APIServer() string { return fmt.Sprintf("127.0.0.1:%d", p.ports.api) }

// AuditLog is the file with the requests of the audited user.
func (p *Plane) AuditLog() string { return p.path("audit.log") }

// APIPid is the process id of the API server.
func (p *Plane) APIPid() int { return p.api.Pid() }

func (p *Plane) startManager() (err error) {
	p.manager, err = process.Start(p.config.Folder, "kube-controller-manager", p.binaries["kube-controller-manager"],
		"--kubeconfig="+p.Kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--controllers="+strings.Join(controllers, ","), "--root-ca-file="+p.path("ca.crt"),
		"--kube-api-qps=1000", "--kube-api-burst=2000", "--profiling=false")
	if err != nil {
		return err
	}
	return p.await(p.manager, func(ctx context.Context) error {
		_, err := p.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// await polls until a part is at work, or has ended.
func (p *Plane) await(part *process.Process, isReady func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := isReady(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-part.Ended():
			return fmt.Errorf("%s ended at its start; it printed:\n%s", part.Name, part.Quote())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w; it printed:\n%s", part.Name, patience, err, part.Quote())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *Plane) withEtcd(use func(*clientv3.Client) error) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{p.etcdURL()}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	return use(client)
}

func (p *Plane) etcdURL() string { return fmt.Sprintf("http://127.0.0.1:%d", p.ports.etcd) }

func (p *Plane) path(name string) string { return filepath.Join(p.config.Folder, name) }

func (p *Plane) write(name, text string) error {
	return os.WriteFile(p.path(name), []byte(text), 0o600)
}
