package peer;

import org.springframework.http.HttpStatus;
import org.springframework.http.ProblemDetail;

/** Why a call was refused. */
enum OtpProblem {
    BAD_NUMBER(HttpStatus.UNPROCESSABLE_ENTITY, "Not a mobile number"),
    BAD_CODE(HttpStatus.UNPROCESSABLE_ENTITY, "Not a code"),
    UNKNOWN(HttpStatus.NOT_FOUND, "No code for this number"),
    EXPIRED(HttpStatus.GONE, "The code has expired"),
    USED(HttpStatus.GONE, "The code was used"),
    MISMATCH(HttpStatus.UNAUTHORIZED, "Not the code");

    private final HttpStatus status;
    private final String title;

    OtpProblem(HttpStatus status, String title) {
        this.status = status;
        this.title = title;
    }

    ProblemDetail detail() {
        var detail = ProblemDetail.forStatus(status);
        detail.setTitle(title);
        return detail;
    }

    Refused exception() {
        return new Refused(this);
    }

    /** Carries no stack trace: refusals are answers, not faults. */
    static class Refused extends RuntimeException {
        final transient OtpProblem problem;

        Refused(OtpProblem problem) {
            super(problem.title, null, false, false);
            this.problem = problem;
        }
    }
}
