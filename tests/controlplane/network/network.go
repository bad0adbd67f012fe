// Package network gives a program a network of its own.
//
// The API server refuses loopback addresses in EndpointSlices, so pods need addresses of another kind that lead nowhere
// else. Enter starts the program once more, in a network namespace where all of Pods is on `lo`, and in a namespace of
// process ids, of which it is the first. Neither namespace has a name: when the inner program ends, however it ends,
// the kernel kills what it left running, and both are gone.
package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Pods is the network of all pods.
const Pods = "10.244.0.0/16"

const inside = "CONTROLPLANE_INSIDE"

// Enter comes back in the inner program only. The outer one does what must be done in the network of the machine,
// waits for the inner one and ends with its exit code.
func Enter(prepare func() error) error {
	if os.Getenv(inside) != "" {
		return settle()
	}
	if os.Geteuid() != 0 {
		return errors.New("the tests on a real control plane make a network namespace: run them as root")
	}
	if err := prepare(); err != nil {
		return err
	}
	// The inner program is killed when the thread that started it ends.
	runtime.LockOSThread()
	inner := exec.Command("/proc/self/exe", os.Args[1:]...)
	inner.Env = append(os.Environ(), inside+"=1")
	inner.Stdin, inner.Stdout, inner.Stderr = os.Stdin, os.Stdout, os.Stderr
	inner.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := inner.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces for network and processes: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for received := range signals {
			_ = inner.Process.Signal(received)
		}
	}()
	// How it ended is in its state, also where Wait calls it an error.
	_ = inner.Wait()
	code := inner.ProcessState.ExitCode()
	if code < 0 {
		fmt.Fprintln(os.Stderr, "the inner program:", inner.ProcessState)
		code = 1
	}
	os.Exit(code)
	return nil
}

// settle makes every address of Pods one of this machine's own.
func settle() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	pods, err := netlink.ParseIPNet(Pods)
	if err != nil {
		return err
	}
	route := netlink.Route{
		Dst: pods, LinkIndex: lo.Attrs().Index,
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if err := netlink.RouteAdd(&route); err != nil {
		return fmt.Errorf("route to %s: %w", Pods, err)
	}
	return nil
}
