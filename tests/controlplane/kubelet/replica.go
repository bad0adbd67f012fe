package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Port is where replicas take requests: that of the stock model server.
const Port = 5001

// PaceHeader makes the answer to one request take longer; milliseconds.
const PaceHeader = "x-test-pace-ms"

// silence is how long a connection may say nothing. Nobody opens one ahead of need to a server of this kind.
const silence = 10 * time.Second

// Replica is a model server as the stock one is: one request at a time, and the connection is closed after every
// answer. Connections that come meanwhile wait in the backlog of the socket.
type Replica struct {
	name     string
	pace     time.Duration
	listener net.Listener
	done     sync.WaitGroup

	// Served counts answers, First is when the first request arrived, in nanoseconds since 1970.
	Served, First atomic.Int64
}

// Listen starts a replica at an address of the network of pods.
func Listen(name, address string, pace time.Duration) (*Replica, error) {
	listener, err := net.Listen("tcp4", net.JoinHostPort(address, fmt.Sprint(Port)))
	if err != nil {
		return nil, err
	}
	replica := &Replica{name: name, pace: pace, listener: listener}
	replica.done.Add(1)
	go replica.serve()
	return replica, nil
}

// Close finishes what runs and no more: what waits in the backlog is reset.
func (r *Replica) Close() {
	_ = r.listener.Close()
	r.done.Wait()
}

func (r *Replica) serve() {
	defer r.done.Done()
	for {
		connection, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.answer(connection)
		_ = connection.Close()
	}
}

func (r *Replica) answer(connection net.Conn) {
	_ = connection.SetDeadline(time.Now().Add(silence))
	request, err := http.ReadRequest(bufio.NewReader(connection))
	if err != nil {
		return
	}
	r.First.CompareAndSwap(0, time.Now().UnixNano())
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return
	}
	pace := r.pace
	if longer, err := strconv.Atoi(request.Header.Get(PaceHeader)); err == nil {
		pace = time.Duration(longer) * time.Millisecond
	}
	time.Sleep(pace)
	r.Served.Add(1)
	_, _ = fmt.Fprintf(connection, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", len(r.name), r.name)
}
