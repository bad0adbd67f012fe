// Package scenarios holds what must not lose a request on a real control plane.
//
// All tests share one control plane and one kubelet; each has its own namespace, and its own router that reaches the
// API server by a link which can be cut, with the token of an account that has no other rights than the documents say.
package scenarios

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"scorefront.dev/controlplane/kubelet"
	"scorefront.dev/controlplane/network"
	"scorefront.dev/controlplane/plane"
)

var (
	version = flag.String("kubernetes", plane.Version, "the `version` of Kubernetes to run")
	outage  = flag.Duration("outage", 10*time.Second, "how long the API server stays away")
	scale   = flag.String("scale", "small", "the worlds to measure: small, or full for the large one too")
	binary  = flag.String("scorefront", "", "the router to run (default target/debug/scorefront)")
)

// pace is how long a replica takes for a request.
const pace = 5 * time.Millisecond

// The account of all routers.
const (
	accountNamespace = "scorefront"
	account          = "scorefront"
	accountUser      = "system:serviceaccount:" + accountNamespace + ":" + account
)

// world is what all tests share.
var world *plane.Plane

// node is the node of all pods.
var node *kubelet.Kubelet

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	// Built outside: the inner network leads nowhere.
	prepare := func() error {
		if _, err := os.Stat(routerBinary()); err != nil {
			return fmt.Errorf("%w: cargo build, or name another router with -scorefront", err)
		}
		return plane.Build(*version)
	}
	if err := network.Enter(prepare); err != nil {
		return 1, err
	}
	// Nobody in front needs time to turn away, unless a test says so.
	if err := os.Setenv("SCOREFRONT_DRAIN_GRACE_MS", "100"); err != nil {
		return 1, err
	}
	folder, err := os.MkdirTemp("", "controlplane-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(folder)
	if world, err = plane.Start(plane.Config{Version: *version, Folder: folder, Audited: accountUser}); err != nil {
		return 1, err
	}
	defer func() {
		if failure := world.Stop(); failure != nil && err == nil {
			code, err = 1, failure
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	broken := func(err error) { fmt.Fprintln(os.Stderr, "kubelet:", err) }
	if node, err = kubelet.New(ctx, world.Client, pace, broken); err != nil {
		cancel()
		return 1, err
	}
	over := make(chan struct{})
	go func() {
		node.Run(ctx)
		close(over)
	}()
	defer func() {
		cancel()
		<-over
	}()
	if err := createAccount(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// routerBinary is the path of the router under test.
func routerBinary() string {
	if *binary != "" {
		return *binary
	}
	root, err := plane.Repository()
	if err != nil {
		return "target/debug/scorefront"
	}
	return filepath.Join(root, "target", "debug", "scorefront")
}
