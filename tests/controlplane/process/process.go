// Package process runs programs for the test bed.
//
// Holds: a child never outlives the one who started it (the kernel kills it), and what it printed is in a file that a
// failure can quote.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a running program.
type Process struct {
	Name   string
	output string
	child  *exec.Cmd
	ended  chan struct{}
	err    error
}

// Start runs a program with its output in folder/name.log; an output that is there already is continued.
func Start(folder, name, program string, arguments ...string) (*Process, error) {
	output := filepath.Join(folder, name+".log")
	file, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	child := exec.Command(program, arguments...)
	child.Stdout, child.Stderr = file, file
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	process := &Process{Name: name, output: output, child: child, ended: make(chan struct{})}
	go func() {
		process.err = child.Wait()
		close(process.ended)
	}()
	return process, nil
}

// Ended is closed when the program is over.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Pid is its process id.
func (p *Process) Pid() int { return p.child.Process.Pid }

// ExitCode is that of a program which has ended; -1 where a signal ended it.
func (p *Process) ExitCode() int { return p.child.ProcessState.ExitCode() }

// Stop asks the program to end and waits for that.
func (p *Process) Stop(patience time.Duration) error {
	if err := p.Ask(); err != nil {
		return err
	}
	return p.Await(patience)
}

// Ask asks the program to end.
func (p *Process) Ask() error {
	if err := p.child.Process.Signal(syscall.SIGTERM); err != nil {
		<-p.ended
		return p.failure("had ended before it was asked to")
	}
	return nil
}

// Await waits for a program that was asked to end, kills it when it takes too long, and says whether it ended well by
// itself. To die of the request is well enough: etcd does that when it is done.
func (p *Process) Await(patience time.Duration) error {
	select {
	case <-p.ended:
		if p.err != nil && p.child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
			return p.failure("did not end well")
		}
		return nil
	case <-time.After(patience):
		p.Kill()
		return p.failure(fmt.Sprintf("did not end within %s", patience))
	}
}

// Kill ends the program at once.
func (p *Process) Kill() {
	// An error says that it has ended.
	_ = p.child.Process.Kill()
	<-p.ended
}

// Quote gives the last lines that it printed.
func (p *Process) Quote() string {
	const most = 4000
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		text = text[len(text)-most:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return string(text)
}

func (p *Process) failure(what string) error {
	return fmt.Errorf("%s %s (%v); it printed:\n%s", p.Name, what, p.err, p.Quote())
}

// FreePort is a port of loopback that was free a moment ago.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// Final is an error after which it is no use to go on polling.
type Final struct{ Err error }

func (f Final) Error() string { return f.Err.Error() }

// Until polls until the condition no longer gives an error; its last error is told when patience is at its end.
func Until(patience time.Duration, what string, condition func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if errors.As(err, &Final{}) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
