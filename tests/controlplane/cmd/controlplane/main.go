// Command controlplane runs the control plane of the tests by itself, to try things on.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"scorefront.dev/controlplane/plane"
)

const usage = `usage: controlplane build [--version V] [PROGRAM…]
       controlplane up --dir D [--version V] [--pod-security restricted|baseline|privileged]

build: builds what is not in target/controlplane/V yet, and prints the path of each program: etcd, kube-apiserver,
       kube-controller-manager and kubectl, or those that are named.
up:    starts etcd, kube-apiserver and kube-controller-manager with their data and logs in D, prints the path of an
       admin kubeconfig when all are at work, and ends them on SIGTERM, SIGINT, or the end of standard input.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("controlplane", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	config := plane.Config{}
	flags.StringVar(&config.Version, "version", plane.Version, "")
	flags.StringVar(&config.Folder, "dir", "", "")
	flags.StringVar(&config.PodSecurity, "pod-security", "privileged", "")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch {
	case arguments[0] == "build":
		return build(config.Version, flags.Args())
	case arguments[0] == "up" && config.Folder != "":
		return up(config)
	default:
		return errors.New(usage)
	}
}

func build(version string, programs []string) error {
	if len(programs) == 0 {
		programs = plane.Programs
	}
	binaries, err := plane.Binaries(version, programs...)
	for _, path := range binaries {
		fmt.Println(path)
	}
	return err
}

func up(config plane.Config) error {
	folder, err := filepath.Abs(config.Folder)
	if err != nil {
		return err
	}
	config.Folder = folder
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	running, err := plane.Start(config)
	if err != nil {
		return err
	}
	fmt.Println(running.Kubeconfig)
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	select {
	case <-signals:
	case <-closed:
	}
	return running.Stop()
}
